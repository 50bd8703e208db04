//! How messages travel on a call: as `tonic_prost` would write and read them, with less work.
//!
//! prost reads a number byte by byte through whatever buffer it is given, and that of tonic checks its bounds each time. A message lies in one
//! piece of it, so prost gets that. It computes the whole length of a message before it writes, to see whether there is room; tonic's
//! buffer grows, and tonic itself checks the length of what was written.

use std::marker::PhantomData;

use prost::{Message, bytes::Buf as _};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Writes `T`s, and reads `U`s.
#[derive(Debug)]
pub struct Plain<T, U>(PhantomData<(T, U)>);

/// Writes messages.
#[derive(Debug)]
pub struct Writer<T>(PhantomData<T>);

/// Reads messages.
#[derive(Debug)]
pub struct Reader<U>(PhantomData<U>);

impl<T, U> Default for Plain<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Plain<T, U>
where
    T: Message + 'static,
    U: Message + Default + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Writer<T>;
    type Decoder = Reader<U>;

    fn encoder(&mut self) -> Writer<T> {
        Writer(PhantomData)
    }

    fn decoder(&mut self) -> Reader<U> {
        Reader(PhantomData)
    }
}

impl<T: Message> Encoder for Writer<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode_raw(to);
        Ok(())
    }
}

impl<U: Message + Default> Decoder for Reader<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let (whole, len) = (from.chunk(), from.remaining());
        let message = if whole.len() == len {
            let message = U::decode(whole);
            from.advance(len);
            message
        } else {
            U::decode(from)
        };
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
