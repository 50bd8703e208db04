//! Everything dies at once and comes back: what was saved is all that is left.

use std::time::Duration;

use proto::v1::{ChatRequest, DisconnectPolicy, ResumeChatRequest, chat_service_client::ChatServiceClient};

use crate::{
    processes::AllInOne,
    stream::{eventually, oracle, script},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_background_answer_goes_on_after_the_whole_mesh_was_killed_and_started_again() {
    const TOKENS: usize = 300;
    let mut mesh = AllInOne::start(&[("UNBROKEN_ENGINE", "scripted"), ("UNBROKEN_LEASE", "3s")]).await;
    let request = ChatRequest {
        prompt: script("again", TOKENS, Duration::from_millis(20)),
        disconnect: DisconnectPolicy::Background.into(),
        ..ChatRequest::default()
    };
    let mut router = ChatServiceClient::connect(format!("http://{}", mesh.grpc)).await.unwrap();
    let mut reading = router.stream_chat(request).await.unwrap().into_inner();
    let mut stream_id = String::new();
    while let Some(response) = reading.message().await.unwrap() {
        stream_id = response.stream_id.unwrap_or_default();
        if response.position >= Some(150) {
            break; // two seconds later at least: it has been saved
        }
    }
    mesh.process.restart().unwrap(); // which kills it first
    mesh.process.ready(mesh.http.parse().unwrap(), "/ready").await.unwrap();
    let mut router = ChatServiceClient::connect(format!("http://{}", mesh.grpc)).await.unwrap();
    let mut said = String::new();
    eventually("the answer is there again", async || {
        let request = ResumeChatRequest {
            stream_id: stream_id.clone(),
            ..ResumeChatRequest::default()
        };
        let Ok(resumed) = router.resume_chat(request).await else {
            return false;
        };
        let mut resumed = resumed.into_inner();
        let mut next = 0;
        while let Some(response) = resumed.message().await.unwrap() {
            assert_eq!(response.position, Some(next), "each entry once");
            next += 1;
            said += &response.token.unwrap_or_default();
        }
        true
    })
    .await;
    assert_eq!(said, oracle("again", 0..TOKENS));
    assert!(
        mesh.process.output().contains("goes on from what was saved"),
        "it was not made anew"
    );
}
