//! Whose limits hold: nobody's who has not said who they are, and those of the user for whom a trusted front speaks.

use super::{answer, ask, whole};
use crate::{
    client::{self, Whole},
    gateway::Gateway,
    router::Router,
};

#[tokio::test]
async fn nobody_is_limited_who_has_not_said_who_they_are() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--tiers", "free=1/1/1"]).await;
    let asking = async {
        for _ in 0..3 {
            let response = ask(&gateway).await;
            assert_eq!(response.status, 200);
            assert!(response.header("x-ratelimit-limit-requests").is_none());
        }
    };
    tokio::select! { () = asking => {}, () = answer(&router) => {} }
}

async fn as_user(gateway: &Gateway, user: &str, tier: &str) -> Whole {
    let head = format!("GET /stream?prompt=hi HTTP/1.1\nx-user-id: {user}\nx-user-tier: {tier}");
    client::send(gateway.address, &head, b"").await.whole().await
}

#[tokio::test]
async fn a_front_is_believed_from_its_address_only() {
    let router = Router::start();
    let tiers = "free=1/0/0,pro=3/0/0";
    let trusted = Gateway::with(&[&router], &["--fronts", "127.0.0.0/8", "--tiers", tiers]).await;
    let other = Gateway::with(&[&router], &["--fronts", "10.0.0.0/8", "--tiers", tiers]).await;
    let asking = async {
        let limit = |response: &Whole| response.header("x-ratelimit-limit-requests").map(str::to_owned);
        assert_eq!(limit(&as_user(&trusted, "ann", "pro").await).as_deref(), Some("3"));
        // An unknown tier counts as free, and each user has limits of their own.
        assert_eq!(limit(&as_user(&trusted, "bob", "gold").await).as_deref(), Some("1"));
        assert_eq!(as_user(&trusted, "bob", "gold").await.status, 429);
        assert_eq!(as_user(&trusted, "ann", "pro").await.status, 200);
        let stranger = as_user(&other, "ann", "pro").await;
        assert_eq!((stranger.status, limit(&stranger)), (200, None));
    };
    tokio::select! { () = asking => {}, () = answer(&router) => {} }
}

#[tokio::test]
async fn an_answer_is_the_users_for_whom_the_front_speaks() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--fronts", "127.0.0.1"]).await;
    let (_, request) = tokio::join!(as_user(&gateway, "ann", "pro"), router.say(whole()));
    let principal = request.principal.unwrap();
    assert_eq!((principal.tenant.as_str(), principal.user_id.as_str()), ("", "ann"));
    assert_eq!(request.door, "stream");
}
