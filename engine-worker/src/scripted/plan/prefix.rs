//! Judges what a plan is to go on after.

use proto::v1::{Failure, ResumePoint};

use super::Plan;

impl Plan {
    /// The script knows what it must have said: a prefix that is not that is refused.
    pub(super) fn check_resume(&self, resume: &[ResumePoint]) -> Result<(), Failure> {
        let wrong = |message: String| Err(Failure::invalid("resume", message));
        let mut made = 0u32;
        let (index, stepping) = self.place(self.position);
        for point in resume {
            if point.choice >= self.choices {
                return wrong(format!("choice {} is resumed, and the request has {}", point.choice, self.choices));
            }
            for (index, id) in (0..).zip(&point.token_ids) {
                let expected = self.oracle.id(point.choice, index);
                if *id != expected {
                    return wrong(format!(
                        "token {index} of choice {} is {id}; the script says {expected} there",
                        point.choice
                    ));
                }
            }
            let tokens = u32::try_from(point.token_ids.len()).unwrap_or(u32::MAX);
            let expected = self.length(point.choice).min(index + u32::from(point.choice < stepping));
            if tokens != expected {
                return wrong(format!(
                    "choice {} has {tokens} tokens; before position {} it has {expected}",
                    point.choice, self.position
                ));
            }
            if self.choices > 1 && point.end.is_some() != (tokens == self.length(point.choice)) {
                return wrong(format!(
                    "choice {} has {tokens} of its {} tokens, and its end is {}said",
                    point.choice,
                    self.length(point.choice),
                    if point.end.is_some() { "" } else { "not " }
                ));
            }
            let text = (0..tokens).map(|index| self.text(index, point.choice));
            let text: String = text.skip(self.reasoning as usize).collect();
            if self.tool.is_none() && self.epoch.is_none() && !point.text.is_empty() && point.text != text {
                return wrong(format!("the text of choice {} is not what its {tokens} tokens say", point.choice));
            }
            made = made.saturating_add(tokens);
        }
        if made != self.position {
            return wrong(format!("{made} tokens are resumed, and the next position is {}", self.position));
        }
        if made > self.entries() {
            return wrong(format!("{made} tokens are resumed, and the whole answer has {}", self.entries()));
        }
        Ok(())
    }
}
