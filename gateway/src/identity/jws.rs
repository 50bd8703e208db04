//! The signature of a token: JWS in its compact form (<https://www.rfc-editor.org/rfc/rfc7515>), with the three algorithms that identity
//! providers use. The cryptography is ring's; here is only how a token and a public key are written. What the header says decides
//! nothing: its algorithm must be the one that the key is for. Pure.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::ValueEnum;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// An algorithm of signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Algorithm {
    /// RSA (PKCS#1 v1.5) with SHA-256; keys of 2048 bits and more.
    #[value(name = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[value(name = "ES256")]
    Es256,
    /// Ed25519.
    #[value(name = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    /// Its name in headers and keys.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// A public key.
#[derive(Clone, Debug)]
pub(super) enum PublicKey {
    /// Modulus and exponent.
    Rsa(Vec<u8>, Vec<u8>),
    /// An uncompressed point.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// The one algorithm that it is for.
    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa(..) => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified =
            |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| UnparsedPublicKey::new(algorithm, key).verify(message, signature);
        match self {
            Self::Rsa(n, e) => RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
            Self::P256(point) => verified(&ECDSA_P256_SHA256_FIXED, point),
            Self::Ed25519(key) => verified(&ED25519, key),
        }
        .is_ok()
    }
}

/// A token, taken apart. Nothing of it is to be believed before its signature was checked.
#[derive(Debug)]
pub(super) struct Unchecked<'a> {
    header: Header,
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Why a token is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("it is not a JWT")]
    Form,
    #[error("its header demands what is not understood here (crit)")]
    Critical,
    #[error("it is signed with another algorithm than its key is for")]
    Algorithm,
    #[error("its signature is wrong")]
    Signature,
}

impl<'a> Unchecked<'a> {
    /// Takes a token apart.
    pub(super) fn parse(token: &'a str) -> Result<Self, Error> {
        let (message, signature) = token.rsplit_once('.').ok_or(Error::Form)?;
        let (header, payload) = message.split_once('.').ok_or(Error::Form)?;
        if payload.contains('.') {
            return Err(Error::Form);
        }
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Error::Form)?;
        if header.crit.is_some() {
            return Err(Error::Critical);
        }
        Ok(Self {
            header,
            message,
            payload,
            signature,
        })
    }

    /// The name of the key that it says to be signed with.
    pub(super) fn key(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// What it says, if this key has signed it.
    pub(super) fn claims(&self, key: &PublicKey) -> Result<Map<String, Value>, Error> {
        if self.header.alg != key.algorithm().name() {
            return Err(Error::Algorithm);
        }
        if !key.has_signed(self.message.as_bytes(), &decode(self.signature)?) {
            return Err(Error::Signature);
        }
        serde_json::from_slice(&decode(self.payload)?).map_err(|_| Error::Form)
    }
}

/// Base64 as tokens and keys have it: without padding, and in one way only.
fn decode(text: &str) -> Result<Vec<u8>, Error> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Form)
}

/// A key of a JWKS (<https://www.rfc-editor.org/rfc/rfc7517>, <https://www.rfc-editor.org/rfc/rfc7518#section-6>).
#[derive(Debug, Deserialize)]
pub(super) struct Jwk {
    kty: String,
    pub(super) kid: Option<String>,
    r#use: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// The public key, if it is one for a signature of ours.
    pub(super) fn public_key(&self) -> Option<PublicKey> {
        let bytes = |text: &Option<String>| decode(text.as_deref()?).ok();
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => PublicKey::Rsa(bytes(&self.n)?, bytes(&self.e)?),
            ("EC", Some("P-256")) => PublicKey::P256([vec![4], bytes(&self.x)?, bytes(&self.y)?].concat()),
            ("OKP", Some("Ed25519")) => PublicKey::Ed25519(bytes(&self.x)?),
            _ => return None,
        };
        let for_signatures = self.r#use.as_deref().is_none_or(|purpose| purpose == "sig");
        let for_it = self.alg.as_deref().is_none_or(|named| named == key.algorithm().name());
        (for_signatures && for_it).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 8037, appendix A: a key, and what it has signed.
    const ED_KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const ED_HEADER: &str = "eyJhbGciOiJFZERTQSJ9";
    const ED_PAYLOAD: &str = "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    const ED_SIGNATURE: &str = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    /// The example of RFC 7515, appendix A.3.
    const EC_KEY: &str =
        r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const EC_TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    /// Made with OpenSSL: a key of 2048 bits, and what it has signed.
    const RSA_KEY: &str = r#"{"kty":"RSA","n":"mANsTVwGvWjW4G1lwEyvhq0W0b5GZhGY923aZ-qSstCJcphq-nqQznBrSfTCq2_dN1CXYvpLE9BAOYdSB2e6IcxnY-4OaQ6OYWd-pdqmmG6cfE2Zi6cxw1izTJDBxcrzaO-pYroK2gTe5EpAGo5DQAB-UaAsT_QJEZQ2z4OhZJRmEzg-sgI_tQYL7nl97p7K1e7VN68S6FvhEg6uUjAccs8IMBB9sy94uYiwxbDckp0xIF6UEoWg09r3OujvvdOgkpB8zvNkebxNwS6SFXN0TrYI8vx_7iTvzpDOBb7hLnmkz9rlKtmiZJzgQbzshxoSHteEW3jJpGhck3lwqJtXVQ","e":"AQAB"}"#;
    const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLCJleHAiOjEzMDA4MTkzODB9.Rq6y7yupTPNHPvSE-fGPcOAesR9Y6Jh8IlzIVTeFJxZKEeijo1rQoeD8CX1Rpvc2bbKb6Y6BG9xlsQFNiaA78tAfM6dCxJAKsRfAvre5if2r1bUkniEw1CwHp9s6jiFDOE29kMd6qtzzirNsoqbRyIpseh-kKoHrio-UrJg5q4GixdVXnNGY3rSBxqwpSjGKcEcCUz0AdYM3ZLYhDePmSH1kt1eqIeY_0nkdKvOgvA1Uv3J8LGcZILirzFvQrlE2BeMAP8S39YxnUxZN5JM29M6B3T_M0cLGtX3It5CnGqnTxuZvM5fSk0gip0Vq7XN1iueZByZxTzx2nsighk2MRA";

    fn key(jwk: &str) -> PublicKey {
        serde_json::from_str::<Jwk>(jwk).unwrap().public_key().unwrap()
    }

    #[test]
    fn good_signatures_are_believed_and_changed_ones_are_not() {
        for (jwk, token) in [(EC_KEY, EC_TOKEN), (RSA_KEY, RSA_TOKEN)] {
            let claims = Unchecked::parse(token).unwrap().claims(&key(jwk)).unwrap();
            assert_eq!(claims["iss"], "joe");
            let (message, signature) = token.rsplit_once('.').unwrap();
            let changed = format!("{}A.{signature}", &message[..message.len() - 1]);
            assert_eq!(Unchecked::parse(&changed).unwrap().claims(&key(jwk)), Err(Error::Signature));
        }
        // This one's payload is no JSON: its signature is good, all the same.
        let token = format!("{ED_HEADER}.{ED_PAYLOAD}.{ED_SIGNATURE}");
        assert_eq!(Unchecked::parse(&token).unwrap().claims(&key(ED_KEY)), Err(Error::Form));
        let other = format!("{ED_HEADER}.{ED_HEADER}.{ED_SIGNATURE}");
        assert_eq!(Unchecked::parse(&other).unwrap().claims(&key(ED_KEY)), Err(Error::Signature));
    }

    #[test]
    fn the_header_does_not_choose_the_algorithm() {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let payload = encode(r#"{"sub":"mallory"}"#);
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"ES256"}"#,
            r#"{"alg":"rs256"}"#,
            r#"{"alg":""}"#,
        ] {
            for signature in ["", "AAAA"] {
                let token = format!("{}.{payload}.{signature}", encode(header));
                assert_eq!(
                    Unchecked::parse(&token).unwrap().claims(&key(RSA_KEY)),
                    Err(Error::Algorithm),
                    "{header}"
                );
            }
        }
        let critical = format!("{}.{payload}.AAAA", encode(r#"{"alg":"RS256","crit":["b64"]}"#));
        assert_eq!(Unchecked::parse(&critical).unwrap_err(), Error::Critical);
    }

    #[test]
    fn keys_for_other_purposes_are_none() {
        for other in [
            r#"{"kty":"oct","k":"c2VjcmV0"}"#,
            &ED_KEY.replace("Ed25519", "X25519"),
            &ED_KEY.replace("\"kid\"", "\"use\":\"enc\",\"kid\""),
            &ED_KEY.replace("\"kid\"", "\"alg\":\"HS256\",\"kid\""),
            &RSA_KEY.replace("\"e\"", "\"alg\":\"RSA-OAEP\",\"e\""),
            &EC_KEY.replace("\"y\"", "\"z\""),
        ] {
            assert!(serde_json::from_str::<Jwk>(other).unwrap().public_key().is_none(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fall_over(token in "(?s).{0,60}|[A-Za-z0-9_-]{0,40}[.][A-Za-z0-9_-]{0,40}[.][A-Za-z0-9_-]{0,90}") {
            if let Ok(parsed) = Unchecked::parse(&token) {
                prop_assert!(parsed.claims(&key(ED_KEY)).is_err());
            }
        }

        #[test]
        fn a_token_with_any_one_character_changed_is_not_believed(at in 0..EC_TOKEN.len(), to in "[A-Za-z0-9_.-]") {
            let mut changed = EC_TOKEN.to_owned();
            changed.replace_range(at..=at, &to);
            let believed = Unchecked::parse(&changed).is_ok_and(|token| token.claims(&key(EC_KEY)).is_ok());
            prop_assert_eq!(believed, changed == EC_TOKEN);
        }
    }
}
