//! A client that goes takes its answer with it, at once and down to the engine.

use std::time::Duration;

use proto::v1::{ListAnswersRequest, chat_service_client::ChatServiceClient};

use crate::{
    processes::AllInOne,
    stream::{Events, eventually, script},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_stops_within_a_step_when_the_client_goes() {
    const STEP: Duration = Duration::from_millis(50);
    let mesh = AllInOne::scripted().await;
    let mut router = ChatServiceClient::connect(format!("http://{}", mesh.grpc)).await.unwrap();
    let request = reqwest::Client::new()
        .get(format!("http://{}/stream", mesh.http))
        .query(&[("prompt", script("c", 10_000, STEP))]);
    let mut events = Events::new(request.send().await.unwrap());
    let mut read = 0;
    while read < 10 {
        events.next().await.unwrap();
        read += 1;
    }
    drop(events);
    let mut made = 0;
    eventually("the answer is cancelled", async || {
        let mut answers = router.list_answers(ListAnswersRequest {}).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().expect("the answer is still known");
        made = answer.entries;
        answer.state == "cancelled"
    })
    .await;
    // Its terminal entry, the token that may have been under way, and one step for a busy machine.
    assert!(made <= read + 3, "{read} tokens were read, but {made} entries were made");
    let metrics = reqwest::get(format!("http://{}/metrics", mesh.http))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("llm_concurrent_streams") && line.ends_with(" 0")),
        "{metrics}"
    );
}
