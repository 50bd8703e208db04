//! What the store promises, asked over gRPC, of both databases alike; what it does when a database fails; and its process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod answers;
mod conversations;
mod faults;
mod finish;
mod isolation;
mod items;
mod keys;
mod orphans;
mod postgres;
mod process;
mod records;
mod requests;
mod row_security;
mod stage;
mod turns;

/// Makes of each `async fn name(stage: Stage)` a test over SQLite and one over PostgreSQL.
#[macro_export]
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod over_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let stage = $crate::stage::Stage::over_sqlite().await;
                super::$name(stage.clone()).await;
                stage.end().await;
            })*
        }
        mod over_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let stage = $crate::stage::Stage::over_postgres().await;
                super::$name(stage.clone()).await;
                stage.end().await;
            })*
        }
    };
}
