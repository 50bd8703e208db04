//! The mesh's own entries, as a journal sees them.

impl crate::Entry for proto::v1::Entry {
    fn is_terminal(&self) -> bool {
        Self::is_terminal(self)
    }

    fn weight(&self) -> usize {
        Self::weight(self)
    }
}
