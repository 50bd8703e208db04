//! The way between two processes, and what may go wrong on it: delay, drip, silence in one or both directions, a cut after so many
//! bytes, a reset, nobody there.
//!
//! It carries any two byte streams: sockets in [`crate::proxy`], pipes in memory where a mesh is simulated. What is held back while
//! it is silent arrives when it speaks again, as with a real cable: TCP sends once more what was not acknowledged.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::watch,
    time::sleep,
};

/// The most bytes that are carried at once.
const PIECE: usize = 16 * 1024;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From who has dialled.
    Up,
    /// To who has dialled.
    Down,
}

/// How the way is now.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// Each piece takes so long.
    pub delay: Duration,
    /// Pieces have at most so many bytes. 0: as they come.
    pub drip: usize,
    /// Nothing arrives upwards.
    pub silent_up: bool,
    /// Nothing arrives downwards.
    pub silent_down: bool,
    /// Nobody is there: connections are refused, and those that were open have ended.
    pub away: bool,
    /// All open connections end once so many bytes in all have gone this way.
    cut: Option<(Direction, u64)>,
    /// How often all open connections were ended.
    breaks: u64,
}

impl Weather {
    fn is_silent(&self, direction: Direction) -> bool {
        match direction {
            Direction::Up => self.silent_up,
            Direction::Down => self.silent_down,
        }
    }
}

/// The way from one process to another; all their connections share it.
#[derive(Debug, Default)]
pub struct Link {
    weather: watch::Sender<Weather>,
    carried: [AtomicU64; 2],
}

impl Link {
    /// Changes how it is, for what comes from now on.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Nothing arrives any more in either direction, or all does again.
    pub fn silence(&self, silent: bool) {
        self.change(|weather| (weather.silent_up, weather.silent_down) = (silent, silent));
    }

    /// Ends all connections that are open.
    pub fn reset(&self) {
        self.change(|weather| weather.breaks += 1);
    }

    /// Ends all connections once so many more bytes have gone this way: in the middle of a frame, as it happens.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        let at = self.carried(direction).load(Ordering::Relaxed) + bytes;
        self.change(|weather| weather.cut = Some((direction, at)));
    }

    /// Waits until a connection can be made.
    ///
    /// # Errors
    /// Nobody is there.
    pub async fn open(&self) -> io::Result<()> {
        let mut weather = self.weather.subscribe();
        let weather = weather
            .wait_for(|weather| weather.away || !(weather.silent_up || weather.silent_down))
            .await;
        if weather.is_ok_and(|weather| weather.away) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(())
    }

    /// Carries one connection to its end: `near` has dialled, `far` is who was dialled.
    pub async fn carry<A, B>(&self, near: A, far: B)
    where
        A: AsyncRead + AsyncWrite,
        B: AsyncRead + AsyncWrite,
    {
        let mut weather = self.weather.subscribe();
        let breaks = weather.borrow().breaks;
        let (from_near, to_near) = split(near);
        let (from_far, to_far) = split(far);
        let flows = async {
            tokio::try_join!(
                self.flow(Direction::Up, from_near, to_far),
                self.flow(Direction::Down, from_far, to_near)
            )
        };
        tokio::select! {
            _ = flows => {}
            _ = weather.wait_for(|weather| weather.away || weather.breaks != breaks) => {}
        }
    }

    async fn flow(&self, direction: Direction, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut weather = self.weather.subscribe();
        let mut buffer = vec![0; PIECE];
        loop {
            let most = match weather.borrow().drip {
                0 => PIECE,
                drip => drip.min(PIECE),
            };
            let count = from.read(&mut buffer[..most]).await?;
            let delay = weather.borrow().delay;
            if !delay.is_zero() {
                sleep(delay).await;
            }
            let _ = weather.wait_for(|weather| !weather.is_silent(direction)).await;
            if count == 0 {
                return to.shutdown().await;
            }
            let (passes, cut) = self.count(direction, count);
            to.write_all(&buffer[..passes]).await?;
            to.flush().await?;
            if cut {
                self.reset();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
    }

    /// How many of these bytes still pass, and whether the way is cut after them.
    fn count(&self, direction: Direction, bytes: usize) -> (usize, bool) {
        let before = self.carried(direction).fetch_add(bytes as u64, Ordering::Relaxed);
        let cut = self.weather.borrow().cut;
        match cut {
            Some((way, at)) if way == direction && before + bytes as u64 >= at => {
                self.change(|weather| weather.cut = None);
                (usize::try_from(at.saturating_sub(before)).unwrap_or(bytes), true)
            }
            _ => (bytes, false),
        }
    }

    fn carried(&self, direction: Direction) -> &AtomicU64 {
        &self.carried[direction as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::duplex;

    use super::*;

    fn pair(link: &Arc<Link>) -> (tokio::io::DuplexStream, tokio::io::DuplexStream) {
        let (near, near_end) = duplex(1024);
        let (far_end, far) = duplex(1024);
        let link = Arc::clone(link);
        tokio::spawn(async move { link.carry(near_end, far_end).await });
        (near, far)
    }

    #[tokio::test]
    async fn bytes_pass_whole_in_any_weather_that_lets_them() {
        let link = Arc::new(Link::default());
        link.change(|weather| (weather.drip, weather.delay) = (3, Duration::from_millis(1)));
        let (mut near, mut far) = pair(&link);
        near.write_all(b"hello, world").await.unwrap();
        near.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello, world");
    }

    #[tokio::test]
    async fn a_cut_comes_after_exactly_so_many_bytes_and_ends_both_directions() {
        let link = Arc::new(Link::default());
        link.cut_after(Direction::Up, 5);
        let (mut near, mut far) = pair(&link);
        near.write_all(b"hello, world").await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
        let (mut near, mut far) = pair(&link);
        near.write_all(b"again").await.unwrap();
        far.read_exact(&mut [0; 5]).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_sent_in_silence_arrives_after_it() {
        let link = Arc::new(Link::default());
        let (mut near, mut far) = pair(&link);
        link.change(|weather| weather.silent_up = true);
        near.write_all(b"up").await.unwrap();
        far.write_all(b"down").await.unwrap();
        near.read_exact(&mut [0; 4]).await.unwrap();
        assert!(
            tokio::time::timeout(Duration::from_millis(20), far.read(&mut [0; 8]))
                .await
                .is_err()
        );
        link.silence(false);
        far.read_exact(&mut [0; 2]).await.unwrap();
    }

    #[tokio::test]
    async fn nobody_there_is_said_at_once() {
        let link = Arc::new(Link::default());
        let (mut near, _far) = pair(&link);
        near.write_all(b"x").await.unwrap();
        link.change(|weather| weather.away = true);
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(link.open().await.is_err());
    }
}
