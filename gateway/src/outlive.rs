//! Work that goes on when whoever waits for it goes. A client may hang up at any time, and its request is dropped with it; what has been
//! begun elsewhere by then still has to be closed, or paid for.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use chassis::drain::Drain;
use tokio::runtime::Handle;

/// The work. It costs a task only if nobody waits for it any more.
pub(crate) struct Outlive<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    drain: Drain,
}

/// Does `work` to its end, whoever goes; what it comes to is dropped then.
pub(crate) fn outlive<T: Send + 'static>(drain: &Drain, work: impl Future<Output = T> + Send + 'static) -> Outlive<T> {
    Outlive {
        work: Some(Box::pin(work)),
        drain: drain.clone(),
    }
}

impl<T: Send + 'static> Future for Outlive<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let done = ready!(work.as_mut().poll(context));
        self.work = None;
        Poll::Ready(done)
    }
}

impl<T: Send + 'static> Drop for Outlive<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && Handle::try_current().is_ok()
        {
            self.drain.spawn(async move { drop(work.await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_is_done_whether_or_not_somebody_waits_for_it() {
        let drain = Drain::new();
        assert_eq!(outlive(&drain, async { 7 }).await, 7);
        let (go, gone) = oneshot::channel::<()>();
        let (done, told) = oneshot::channel();
        let mut work = outlive(&drain, async move {
            let _ = gone.await;
            let _ = done.send(());
        });
        tokio::select! {
            biased;
            () = &mut work => unreachable!(),
            () = tokio::task::yield_now() => {}
        }
        drop(work);
        go.send(()).unwrap();
        told.await.unwrap();
    }
}
