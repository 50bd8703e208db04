//! The end of an account: what the limits, the request log, the metrics and the log are told, once, whichever way the request went.

use std::time::Duration;

use tracing::Span;

use super::{Account, Outcome, Running};
use crate::metrics::{ByError, ByModel, ByStatus, ByType, Metrics};

impl Account {
    /// Says what the answer took; if its end was not seen, the request log will know.
    fn settle(&mut self) {
        let Some(grant) = self.grant.take() else { return };
        let usage = self.answer.as_ref().and_then(|running| running.usage);
        match (usage, self.outcome) {
            (Some(usage), _) => grant.settle(u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens)),
            (None, Outcome::Moved) => grant.leave(),
            (None, _) if !self.out => drop(grant), // nobody was asked for it
            (None, Outcome::Refused(..)) if self.answer.is_none() => drop(grant), // it never began, and costs nothing
            (None, _) => {
                let seen = self
                    .answer
                    .as_ref()
                    .map_or(0, |running| u64::from(running.prompt_tokens) + running.tokens);
                grant.look_up(&self.stream_id, (!self.lasting).then_some(seen));
            }
        }
    }

    /// Tells the request log of a request that never became an answer.
    fn log_refusal(&self) {
        let (Outcome::Refused(code, status), None) = (self.outcome, &self.answer) else {
            return;
        };
        self.request_log.refused(&self.caller, &self.arrival, self.door, (code, status));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.settle();
        let duration = self.arrival.at.elapsed();
        self.log_refusal();
        let by_model = ByModel { model: self.model.clone() };
        let (model, status, error) = (self.model.as_str(), self.outcome.status(), self.outcome.error());
        let series = ByStatus {
            model: model.to_owned(),
            status,
        };
        self.metrics.requests.get_or_create(&series).inc();
        self.metrics
            .request_duration
            .get_or_create(&by_model)
            .observe(duration.as_secs_f64());
        if !error.is_empty() {
            let series = ByError {
                model: model.to_owned(),
                error_type: error,
            };
            self.metrics.errors.get_or_create(&series).inc();
        }
        if self.outcome == Outcome::Open {
            self.metrics.drops.inc();
        }
        let mut ttft = None;
        if let Some(running) = &self.answer {
            running.close(&self.metrics, &by_model);
            ttft = running.first_token.map(|first| first - self.arrival.at);
            if let Some(ttft) = ttft {
                self.metrics.ttft.get_or_create(&by_model).observe(ttft.as_secs_f64());
            }
        }
        let tokens = self.answer.as_ref().map_or(0, |running| running.tokens);
        self.arrival.span.in_scope(|| {
            tracing::info!(
                request_id = &*self.arrival.request_id,
                stream_id = self.stream_id,
                door = self.door,
                model,
                tokens,
                ttft_ms = ttft.map(millis),
                duration_ms = millis(duration),
                status,
                error,
                trace_id = chassis::trace::id_of(&Span::current()),
                "answer"
            );
        });
    }
}

impl Running {
    fn close(&self, metrics: &Metrics, by_model: &ByModel) {
        metrics.streams.dec();
        metrics
            .stream_duration
            .get_or_create(by_model)
            .observe(self.admitted.elapsed().as_secs_f64());
        if let Some(usage) = self.usage {
            let series = ByType {
                model: by_model.model.clone(),
                r#type: "input",
            };
            metrics.tokens.get_or_create(&series).inc_by(u64::from(usage.prompt_tokens));
        }
        if let (Some(first), Some(last)) = (self.first_token, self.last_token)
            && self.tokens > 1
        {
            #[expect(clippy::cast_precision_loss, reason = "an answer has far fewer than 2^52 tokens")]
            let gaps = (self.tokens - 1) as f64;
            metrics.tpot.get_or_create(by_model).observe((last - first).as_secs_f64() / gaps);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
