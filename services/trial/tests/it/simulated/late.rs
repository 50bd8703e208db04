//! An answer that its client has whole, while its router was kept from the store for longer than a lease and its worker died: the others
//! must take it for lost, and the store believes its router all the same.

use std::{sync::Arc, time::Duration};

use proto::v1::{
    AnswerSummary, GetAnswerRequest, ListAnswersRequest, Principal, StoredAnswer, chat_service_client::ChatServiceClient,
    conversation_service_client::ConversationServiceClient,
};
use tokio::time::sleep;
use trial::{
    aftermath,
    client::{self, Ask, Door},
};

use super::{mesh::Mesh, on_a_mesh, store::LEASE};

const TOKENS: u32 = 100;

/// The answer that runs, and the number of its router.
async fn running(mesh: &Mesh) -> (usize, AnswerSummary) {
    loop {
        for (number, router) in mesh.routers().into_iter().enumerate() {
            let listed = ChatServiceClient::new(router).list_answers(ListAnswersRequest {}).await;
            if let Ok(Some(answer)) = listed.unwrap().into_inner().message().await
                && answer.entries > 0
            {
                return (number, answer);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn stored(mesh: &Mesh, stream_id: &str) -> StoredAnswer {
    let request = GetAnswerRequest {
        principal: Some(Principal::default()),
        stream_id: stream_id.to_owned(),
    };
    let mut store = ConversationServiceClient::new(mesh.store());
    store.get_answer(request).await.unwrap().into_inner()
}

#[test]
fn an_answer_that_was_taken_for_lost_is_stored_as_its_client_saw_it() {
    on_a_mesh(async |mesh: &mut Mesh| {
        sleep(LEASE).await; // a store that is younger knows of no orphan
        let ask = Ask {
            door: Door::Simple,
            id: "late".to_owned(),
            tokens: TOKENS,
            gap: Duration::from_millis(20),
            conversation: Some(aftermath::conversation(mesh.store()).await.unwrap()),
            begun: Arc::default(),
        };
        let reading = tokio::spawn(client::read(mesh.gateways(), ask));
        let (router, answer) = running(mesh).await;
        let worker = mesh.writer(&answer.stream_id).await.unwrap();
        let to_store = mesh.network.link(&format!("r{router}"), "store");
        to_store.silence(true);
        let history = reading.await.unwrap();
        history.check(TOKENS).unwrap();
        mesh.kill(&worker);
        mesh.start_host(&worker);
        while stored(mesh, &answer.stream_id).await.state == "running" {
            sleep(Duration::from_millis(100)).await;
        }
        let guess = stored(mesh, &answer.stream_id).await;
        assert_eq!((guess.state.as_str(), guess.finish_reason.as_str()), ("failed", "interrupted"));
        to_store.silence(false);
        aftermath::stored(&mesh.store(), &history, aftermath::deadline()).await.unwrap();
        assert!(mesh.kept().twice().is_empty());
    });
}
