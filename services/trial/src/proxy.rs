//! A [`Link`] between two real processes: a port that leads to another one.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use crate::link::Link;

/// A port that leads to another one, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// What happens on the way.
    pub link: Arc<Link>,
    accepting: AbortHandle,
}

impl Proxy {
    /// Leads to `target`, which need not be there yet.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let link = Arc::new(Link::default());
        let way = Arc::clone(&link);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let way = Arc::clone(&way);
                tokio::spawn(async move {
                    let _ = carry(&way, near, target).await; // one that cannot be made ends here, as it would at the target
                });
            }
        });
        Ok(Self {
            address,
            link,
            accepting: accepting.abort_handle(),
        })
    }
}

async fn carry(link: &Link, near: TcpStream, target: SocketAddr) -> io::Result<()> {
    // However it ends, what has not been sent is dropped: as when a cable is pulled, or a process killed.
    near.set_zero_linger()?;
    near.set_nodelay(true)?;
    link.open().await?;
    let far = TcpStream::connect(target).await?;
    far.set_zero_linger()?;
    far.set_nodelay(true)?;
    link.carry(near, far).await;
    Ok(())
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.link.reset();
    }
}
