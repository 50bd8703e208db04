//! How a [`Failure`] travels: inside an exchange as a message, elsewhere as the status of a call with the whole failure in its metadata.

use prost::Message;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::v1::{Failure, Reason};

/// The metadata key under which a status carries its encoded [`Failure`].
pub const FAILURE_METADATA: &str = "unbroken-failure-bin";

impl Reason {
    /// A stable word for this reason: in error bodies, metrics and logs.
    pub fn as_word(self) -> &'static str {
        match self {
            Self::Unspecified | Self::Internal => "internal_error",
            Self::InvalidRequest => "invalid_request",
            Self::ContextLengthExceeded => "context_length_exceeded",
            Self::ModelNotFound => "model_not_found",
            Self::NotFound => "not_found",
            Self::Expired => "expired",
            Self::QueueFull => "queue_full",
            Self::Unavailable => "unavailable",
            Self::StoreUnavailable => "store_unavailable",
            Self::Draining => "draining",
            Self::WorkerLost => "worker_lost",
            Self::Timeout => "timeout",
            Self::Upstream => "upstream_error",
            Self::Interrupted => "interrupted",
            Self::Unsupported => "unsupported",
            Self::Conflict => "conflict",
            Self::Limit => "limit_exceeded",
            Self::Moved => "moved",
            Self::Revoked => "revoked",
        }
    }

    /// The gRPC code for this reason (<https://grpc.github.io/grpc/core/md_doc_statuscodes.html>).
    pub fn code(self) -> Code {
        match self {
            Self::Unspecified | Self::Internal => Code::Internal,
            Self::InvalidRequest | Self::ContextLengthExceeded => Code::InvalidArgument,
            Self::ModelNotFound | Self::NotFound => Code::NotFound,
            Self::Expired => Code::FailedPrecondition,
            Self::QueueFull | Self::Limit => Code::ResourceExhausted,
            Self::Unavailable | Self::StoreUnavailable | Self::Draining | Self::WorkerLost | Self::Upstream | Self::Moved => {
                Code::Unavailable
            }
            Self::Timeout => Code::DeadlineExceeded,
            Self::Interrupted => Code::DataLoss,
            Self::Unsupported => Code::Unimplemented,
            Self::Conflict => Code::AlreadyExists,
            Self::Revoked => Code::Unauthenticated,
        }
    }
}

impl Failure {
    /// A failure of this kind, in words for a person.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
            ..Self::default()
        }
    }

    /// The request is wrong in this field.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: param.into(),
            ..Self::new(Reason::InvalidRequest, message)
        }
    }

    /// The failure that a status carries, or what can be said of a status that carries none: a transport that broke, most often.
    pub fn from_status(status: &Status) -> Self {
        if let Some(failure) = status
            .metadata()
            .get_bin(FAILURE_METADATA)
            .and_then(|value| value.to_bytes().ok())
            .and_then(|bytes| Self::decode(bytes).ok())
        {
            return failure;
        }
        let reason = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Reason::InvalidRequest,
            Code::NotFound => Reason::NotFound,
            Code::DeadlineExceeded => Reason::Timeout,
            Code::Unimplemented => Reason::Unsupported,
            Code::AlreadyExists | Code::Aborted => Reason::Conflict,
            Code::Internal => Reason::Internal,
            _ => Reason::Unavailable,
        };
        Self::new(reason, status.message())
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut status = Self::new(failure.reason().code(), failure.message.clone());
        let encoded = failure.encode_to_vec();
        status
            .metadata_mut()
            .insert_bin(FAILURE_METADATA, MetadataValue::from_bytes(&encoded));
        status
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason().as_word(), self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_its_travel_as_a_status() {
        let failure = Failure {
            queue_depth: 12,
            retry_after_ms: 500,
            ..Failure::new(Reason::QueueFull, "the queue is full")
        };
        let status = Status::from(failure.clone());
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(Failure::from_status(&status), failure);
    }

    #[test]
    fn a_status_without_a_failure_is_read_by_its_code() {
        assert_eq!(Failure::from_status(&Status::unavailable("gone")).reason(), Reason::Unavailable);
    }
}
