//! A list as a stream: it is read piece by piece as its reader takes it, and holds no transaction meanwhile.

use std::{future::Future, pin::Pin};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tonic::{Response, Status};

/// Items that a list reads from the database at once.
const PIECE: u32 = 64;

/// A page on its way.
pub(super) type Page<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A page of at most `size` items. `piece` reads at most so many after a place, and says after which one to go on, if there may be more. The
/// first one is read before this returns: what is wrong is then said by the call, not in the middle of a stream.
///
/// # Errors
/// Those of the first piece.
pub(super) async fn page<T, C, F>(size: u32, from: C, piece: impl FnMut(C, u32) -> F + Send + 'static) -> Result<Response<Page<T>>, Status>
where
    T: Send + 'static,
    C: Send + 'static,
    F: Future<Output = Result<(Option<C>, Vec<T>), Status>> + Send + 'static,
{
    let mut pieces = Box::pin(stream::try_unfold(
        (piece, Some(from), size),
        |(mut piece, from, left)| async move {
            let Some(from) = from.filter(|_| left > 0) else {
                return Ok::<_, Status>(None);
            };
            let (next, items) = piece(from, left.min(PIECE)).await?;
            let left = left.saturating_sub(u32::try_from(items.len()).unwrap_or(left));
            Ok(Some((items, (piece, next, left))))
        },
    ));
    let first = pieces.try_next().await?.unwrap_or_default();
    let items = stream::once(async { Ok(first) })
        .chain(pieces)
        .map_ok(|piece| stream::iter(piece.into_iter().map(Ok)))
        .try_flatten();
    Ok(Response::new(Box::pin(items)))
}
