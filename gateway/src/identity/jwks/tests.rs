//! Which keys are taken, from where, and who waits for them.

use std::pin::pin;

use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::*;

const ALL: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

#[test]
fn keys_for_other_purposes_are_passed_over() {
    let set = |keys: &str| Set::of(format!("{{\"keys\":[{keys}]}}").as_bytes(), &ALL);
    let ed = r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    assert!(set(ed).unwrap().find(Some("a")).is_some());
    assert!(set(ed).unwrap().find(None).is_some(), "the only one");
    assert!(set(ed).unwrap().find(Some("b")).is_none());
    for other in [r#"{"kty":"oct","kid":"a","k":"c2VjcmV0"}"#, "3"] {
        assert!(matches!(set(other), Err(Error::Empty)), "{other}");
        assert_eq!(set(&format!("{other},{ed}")).unwrap().keys.len(), 1, "{other}");
    }
    assert!(
        set(&format!("{ed},{}", ed.replace("\"a\"", "\"b\""))).unwrap().find(None).is_none(),
        "which of them?"
    );
    assert!(matches!(Set::of(ed.as_bytes(), &ALL), Err(Error::Form(_))));
    assert!(matches!(
        Set::of(format!("{{\"keys\":[{ed}]}}").as_bytes(), &ALL[..2]),
        Err(Error::Empty)
    ));
}

#[tokio::test]
async fn whoever_waits_for_the_keys_may_go_and_they_are_read_all_the_same_and_once_for_all() {
    let provider = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("http://{}/keys", provider.local_addr().unwrap());
    let hour = Duration::from_hours(1);
    let times = Times {
        refresh: hour,
        pause: hour,
        stale: hour,
    };
    let jwks = Jwks::new(&place, ALL.to_vec(), times, &Drain::new()).unwrap();
    let mut asked = {
        let mut first = pin!(jwks.find(Some("a")));
        tokio::select! {
            _ = &mut first => panic!("nobody has said anything"),
            asked = provider.accept() => asked.unwrap().0,
        }
    };
    let say = async {
        let body = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        asked.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    };
    let (one, other, ()) = tokio::join!(jwks.find(Some("a")), jwks.find(Some("b")), say);
    assert!(one.unwrap().is_some() && other.unwrap().is_none());
}

#[test]
fn keys_come_over_tls_or_from_this_machine() {
    assert!(url("https://login.example.com/keys").is_ok() && url("http://127.0.0.1:8000/keys").is_ok());
    assert!(matches!(url("http://login.example.com/keys"), Err(Error::Plain(_))));
    assert!(matches!(url("ftp://login.example.com/keys"), Err(Error::Address(_))));
}
