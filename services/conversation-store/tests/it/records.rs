//! Records: opened before their answer, kept with it, found again in a chain, and gone with it.

use proto::v1::{
    DeleteConversationRequest, DeleteRecordRequest, Entry, GenerateResponse, GetRecordRequest, ListRecordsRequest, OpenRecordRequest,
    Reason, Record,
};

use prost::Message as _;

use crate::stage::{Client, Stage, all, ann, begin, conversation, failure, finish, finished, settings, turn};

crate::contract![
    a_record_opens_its_answer_once,
    a_kept_answer_is_read_with_all_its_entries,
    a_record_in_a_conversation_leaves_the_turn_to_the_router_and_goes_with_the_conversation,
    a_chain_is_read_back_to_its_beginning,
    a_deleted_record_takes_its_answer_along_and_never_comes_back,
];

fn opening(stream_id: &str, previous: &str, conversation: &str) -> OpenRecordRequest {
    OpenRecordRequest {
        principal: ann(),
        record: Some(Record {
            stream_id: stream_id.to_owned(),
            previous_id: previous.to_owned(),
            conversation_id: conversation.to_owned(),
            document: format!("what {stream_id} asks").into_bytes(),
            fingerprint: b"f".to_vec(),
            ..Record::default()
        }),
        model: "m".to_owned(),
    }
}

async fn open(client: &mut Client, request: OpenRecordRequest) -> bool {
    client.open_record(request).await.unwrap().into_inner().opened
}

async fn record(client: &mut Client, stream_id: &str) -> Result<Record, Reason> {
    let request = GetRecordRequest {
        principal: ann(),
        stream_id: stream_id.to_owned(),
    };
    let found = client.get_record(request).await;
    found.map(tonic::Response::into_inner).map_err(|status| failure(&status).reason())
}

async fn state(client: &mut Client, stream_id: &str) -> Option<String> {
    record(client, stream_id).await.unwrap().answer.map(|answer| answer.state)
}

async fn a_record_opens_its_answer_once(stage: Stage) {
    let mut client = stage.client();
    assert!(open(&mut client, opening("a", "", "")).await);
    assert!(!open(&mut client, opening("a", "", "")).await, "the same again is the same");
    let mut other = opening("a", "", "");
    other.record.as_mut().unwrap().fingerprint = b"g".to_vec();
    let refused = failure(&client.open_record(other).await.unwrap_err());
    assert_eq!((refused.reason(), refused.param.as_str()), (Reason::Conflict, "fingerprint"));
    let found = record(&mut client, "a").await.unwrap();
    assert_eq!(found.document, b"what a asks");
    let answer = found.answer.unwrap();
    assert_eq!(
        (answer.state.as_str(), answer.model.as_str(), answer.orphan),
        ("running", "m", false)
    );
    assert_eq!(
        stage.count("SELECT COUNT(*) FROM answers WHERE lease_ms > 0").await,
        1,
        "with a lease, so that it can be lost"
    );
    assert_eq!(record(&mut client, "never-was").await.unwrap_err(), Reason::NotFound);
}

async fn a_kept_answer_is_read_with_all_its_entries(stage: Stage) {
    let mut client = stage.client();
    open(&mut client, opening("a", "", "")).await;
    let entries = vec![Entry::text("Hel", 1), Entry::text("lo", 2)];
    let mut turn = finished("", "a", "Hello");
    turn.journal = GenerateResponse {
        entries: entries.clone(),
        ..GenerateResponse::default()
    }
    .encode_to_vec();
    assert_eq!(finish(&mut client, vec![turn.clone()]).await, 1);
    assert_eq!(finish(&mut client, vec![turn]).await, 0, "once");
    let answer = record(&mut client, "a").await.unwrap().answer.unwrap();
    assert_eq!(
        (answer.state.as_str(), answer.message.unwrap().text.as_str()),
        ("finished", "Hello")
    );
    assert_eq!(answer.entries, entries);
    // An answer that nobody has opened is only logged, whatever its router thinks.
    let mut stray = finished("", "b", "Hello");
    stray.journal = b"\x22\x00".to_vec();
    finish(&mut client, vec![stray]).await;
    assert_eq!(stage.count("SELECT COUNT(*) FROM answers").await, 1);
    assert_eq!(stage.count("SELECT COUNT(*) FROM answer_entries").await, 1);
}

async fn a_record_in_a_conversation_leaves_the_turn_to_the_router_and_goes_with_the_conversation(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    open(&mut client, opening("a", "", &id)).await;
    assert_eq!(state(&mut client, "a").await, None);
    assert_eq!(begin(&mut client, turn(&id, "a", "hello")).await, Vec::<String>::new());
    finish(&mut client, vec![finished(&id, "a", "hi")]).await;
    assert_eq!(state(&mut client, "a").await.as_deref(), Some("finished"));
    let nowhere = failure(&client.open_record(opening("b", "", "no-such-conversation")).await.unwrap_err());
    assert_eq!(nowhere.reason(), Reason::NotFound);
    let delete = DeleteConversationRequest { principal: ann(), id };
    client.delete_conversation(delete).await.unwrap();
    assert_eq!(record(&mut client, "a").await.unwrap_err(), Reason::NotFound);
}

async fn a_chain_is_read_back_to_its_beginning(stage: Stage) {
    let mut client = stage.client();
    for (stream_id, previous) in [("a", ""), ("b", "a"), ("c", "b")] {
        open(&mut client, opening(stream_id, previous, "")).await;
        finish(&mut client, vec![finished("", stream_id, &format!("{stream_id} says"))]).await;
    }
    let mut chain = async |from: &str, page_size| {
        let request = ListRecordsRequest {
            principal: ann(),
            stream_id: from.to_owned(),
            page_size,
        };
        let records = all(client.list_records(request).await.unwrap().into_inner()).await;
        let said = |record: &Record| record.answer.as_ref().unwrap().message.as_ref().unwrap().text.clone();
        records
            .iter()
            .map(|record| (record.stream_id.clone(), said(record)))
            .collect::<Vec<_>>()
    };
    let link = |id: &str| (id.to_owned(), format!("{id} says"));
    assert_eq!(chain("c", 0).await, [link("c"), link("b"), link("a")]);
    assert_eq!(chain("c", 2).await, [link("c"), link("b")]);
    assert_eq!(chain("a", 0).await, [link("a")]);
}

async fn a_deleted_record_takes_its_answer_along_and_never_comes_back(stage: Stage) {
    let mut client = stage.client();
    open(&mut client, opening("a", "", "")).await;
    let delete = || DeleteRecordRequest {
        principal: ann(),
        stream_id: "a".to_owned(),
    };
    client.delete_record(delete()).await.unwrap();
    finish(&mut client, vec![finished("", "a", "too late")]).await;
    assert_eq!(record(&mut client, "a").await.unwrap_err(), Reason::NotFound);
    assert_eq!(
        failure(&client.delete_record(delete()).await.unwrap_err()).reason(),
        Reason::NotFound
    );
    assert_eq!(stage.count("SELECT COUNT(*) FROM answers").await, 0);
}

mod age {
    use std::time::Duration;

    use super::{finish, finished, open, opening, record, settings};
    use crate::{postgres, stage::Running};

    async fn records_go_with_their_age_and_take_their_answers_along(database: &str) {
        let store = Running::start(settings(database)).await;
        let mut client = store.client.clone();
        open(&mut client, opening("a", "", "")).await;
        finish(&mut client, vec![finished("", "a", "Hello")]).await;
        store.stop().await.unwrap();
        let mut forgetful = settings(database);
        forgetful.responses_keep = Duration::ZERO;
        let store = Running::start(forgetful).await;
        let mut client = store.client.clone();
        let gone = async {
            while record(&mut client, "a").await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
        let request = proto::v1::GetAnswerRequest {
            principal: crate::stage::ann(),
            stream_id: "a".to_owned(),
        };
        let logged = client.get_answer(request).await.unwrap().into_inner();
        assert_eq!(
            logged.message, None,
            "the log is kept for a time of its own, and what was said is not in it"
        );
        store.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn over_sqlite() {
        let folder = tempfile::TempDir::new().unwrap();
        records_go_with_their_age_and_take_their_answers_along(&format!("sqlite://{}/chat.db", folder.path().display())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn over_postgres() {
        records_go_with_their_age_and_take_their_answers_along(&postgres::shared().await.database().await).await;
    }
}
