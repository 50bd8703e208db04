//! How messages travel on a call: written as `tonic_prost` writes them, and read with a third less work.
//!
//! prost reads a number byte by byte through whatever buffer it is given, and that of tonic checks its bounds each time. A message lies in one
//! piece of it, so prost gets that.

use std::marker::PhantomData;

use prost::{Message, bytes::Buf as _};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

/// Writes `T`s, and reads `U`s.
#[derive(Debug)]
pub struct Plain<T, U>(PhantomData<(T, U)>);

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
    type Encoder = ProstEncoder<T>;
    type Decoder = Reader<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Reader<U> {
        Reader(PhantomData)
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
