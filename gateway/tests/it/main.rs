//! The gateway against a router that the tests play ([`router`]), seen through the bytes on its sockets ([`client`]).

mod client;
mod gateway;
mod router;

mod bad_input;
mod connections;
mod conversations;
mod golden;
mod lost;
mod models;
mod replay;
mod slow;
mod websocket;
