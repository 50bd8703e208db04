//! The conversation store with its request log, in the test's own process.

use chassis::{drain::Drain, listen::listen};
use clap::Parser;
use proto::v1::{
    FinishTurnsRequest, FinishedTurn, ListRequestsRequest, LogScope, LoggedRequest, conversation_service_client::ConversationServiceClient,
};
use tempfile::TempDir;
use tonic::transport::Channel;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    settings: conversation_store::Settings,
}

/// A running store.
pub(crate) struct Log {
    pub(crate) address: String,
    store: ConversationServiceClient<Channel>,
    _folder: TempDir,
}

impl Log {
    /// One that is ready.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Command::parse_from(["store", "--data-dir", folder.path().to_str().unwrap()]).settings;
        let listener = listen("127.0.0.1:0", "test").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { conversation_store::run(settings, listener, Drain::new()).await.unwrap() });
        let store = ConversationServiceClient::new(chassis::channel::lazy(&address).unwrap());
        let log = Self {
            address,
            store,
            _folder: folder,
        };
        while log.list().await.is_none() {
            tokio::task::yield_now().await;
        }
        log
    }

    /// An answer has ended.
    pub(crate) async fn finish(&self, turn: FinishedTurn) {
        let turns = vec![turn];
        self.store.clone().finish_turns(FinishTurnsRequest { turns }).await.unwrap();
    }

    /// The first line of the log, when it is there.
    pub(crate) async fn first(&self) -> FinishedTurn {
        loop {
            if let Some(logged) = self.list().await.and_then(|mut lines| lines.pop()) {
                return logged.turn.unwrap();
            }
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn list(&self) -> Option<Vec<LoggedRequest>> {
        let request = ListRequestsRequest {
            scope: LogScope::All.into(),
            ..ListRequestsRequest::default()
        };
        let lines = self.store.clone().list_requests(request).await.ok()?.into_inner();
        futures_util::TryStreamExt::try_collect(lines).await.ok()
    }
}
