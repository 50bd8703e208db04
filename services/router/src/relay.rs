//! What a reader is sent: [`solo`], one answer on a call of its own, for people and other services; [`exchange`], many answers on one
//! call, for gateways. Both are streams that tonic polls: they have no task, and what is ready leaves in one write.

pub(crate) mod exchange;
pub(crate) mod solo;
