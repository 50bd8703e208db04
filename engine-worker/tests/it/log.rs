//! What the worker logs of an answer.

use std::{io, sync::Arc};

use parking_lot::Mutex;
use serde_json::Value;

use crate::harness::{Worker, ask, bounds, seats, whole};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_answer_leaves_one_line_that_names_it_and_holds_no_word_of_it() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let worker = Worker::scripted(&seats(1), bounds());
    let mut request = ask("an-answer", "id=secretword tokens=7 gap_us=0");
    request.request.as_mut().unwrap().request_id = "a-request".to_owned();
    whole(worker.client().await.generate(request).await.unwrap().into_inner()).await;

    let logged = String::from_utf8(lines.0.lock().clone()).unwrap();
    let ours = logged.lines().filter(|line| line.contains("engine_worker"));
    let ours: Vec<Value> = ours.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!ours.iter().any(|line| line.to_string().contains("secretword")), "{ours:?}");
    let of_answer: Vec<&Value> = ours.iter().filter(|line| line["stream_id"] == "an-answer").collect();
    let [line] = of_answer[..] else { panic!("{ours:?}") };
    assert_eq!(
        (&line["request_id"], &line["model"], &line["outcome"]),
        (&"a-request".into(), &"scripted".into(), &"finished".into())
    );
    assert_eq!((&line["prompt_tokens"], &line["completion_tokens"]), (&4.into(), &7.into()));
    assert!(line["ttft_ms"].is_u64() && line["duration_ms"].is_u64(), "{line}");
}
