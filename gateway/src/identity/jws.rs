//! The signature of a token: which algorithms and keys are taken, and what a token says that such a key has signed. How a token and its
//! claims are read is jsonwebtoken's, the cryptography ring's, as for TLS. What a token's header says decides nothing: its algorithm must be
//! the one that the key is for. Pure but for the clock that expiry is judged by.

use std::sync::Once;

use clap::ValueEnum;
use jsonwebtoken::{
    DecodingKey, DecodingKeyKind, Validation,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    decode, decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
    signature::Verifier,
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
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

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Rs256 => Self::RS256,
            Algorithm::Es256 => Self::ES256,
            Algorithm::EdDsa => Self::EdDSA,
        }
    }
}

/// A public key, and the one algorithm that it is for.
#[derive(Clone, Debug)]
pub(super) struct PublicKey {
    key: DecodingKey,
    algorithm: Algorithm,
}

/// Why a token is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("it is not a JWT, or one of an algorithm that is not known here")]
    Form,
    #[error("its header demands what is not understood here (crit)")]
    Critical,
    #[error("it is signed with another algorithm than its key is for")]
    Algorithm,
    #[error("its signature is wrong")]
    Signature,
    #[error("it has no claim {0}, or none that can be read")]
    Claim(String),
    #[error("its issuer is not one of ours")]
    Issuer,
    #[error("it is for another audience")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not good yet")]
    Early,
}

impl PublicKey {
    /// The key of a JWKS (<https://www.rfc-editor.org/rfc/rfc7518#section-6>), if it is one for a signature of ours.
    pub(super) fn of(jwk: &Jwk) -> Option<Self> {
        let (algorithm, named) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::Rs256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => (Algorithm::Es256, KeyAlgorithm::ES256),
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => (Algorithm::EdDsa, KeyAlgorithm::EdDSA),
            _ => return None,
        };
        let purpose = jwk.common.public_key_use.as_ref();
        let for_signatures = purpose.is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let for_it = jwk.common.key_algorithm.is_none_or(|algorithm| algorithm == named);
        let key = DecodingKey::from_jwk(jwk).ok()?;
        (for_signatures && for_it).then_some(Self { key, algorithm })
    }

    /// The one algorithm that it is for.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What a token says that this key has signed, and that is right by these rules; its algorithm is the key's, whatever the rules have.
    pub(super) fn claims(&self, token: &str, rules: &Validation) -> Result<Map<String, Value>, Error> {
        cryptography();
        let rules = Validation {
            algorithms: vec![self.algorithm.into()],
            ..rules.clone()
        };
        Ok(decode(token, &self.key, &rules)?.claims)
    }
}

/// The name of the key that a token says to be signed with. Nothing of it is to be believed.
pub(super) fn key_name(token: &str) -> Result<Option<String>, Error> {
    let header = decode_header(token)?;
    if header.crit.is_some() {
        return Err(Error::Critical);
    }
    Ok(header.kid)
}

impl From<jsonwebtoken::errors::Error> for Error {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        match error.into_kind() {
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => Self::Algorithm,
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => Self::Claim(claim),
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::Early,
            _ => Self::Form,
        }
    }
}

/// Has jsonwebtoken check signatures by ring. It signs nothing here.
fn cryptography() {
    static RING: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        verifier_factory: |algorithm, key| Ok(Box::new(Ring(*algorithm, key.clone()))),
        key_utils: KeyUtils::new_unimplemented(),
    };
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| _ = RING.install_default());
}

/// A key, and the algorithm that it is used for.
struct Ring(jsonwebtoken::Algorithm, DecodingKey);

impl Verifier<Vec<u8>> for Ring {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), jsonwebtoken::signature::Error> {
        let verified =
            |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| UnparsedPublicKey::new(algorithm, key).verify(message, signature);
        match (self.0, self.1.kind()) {
            (jsonwebtoken::Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            (jsonwebtoken::Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => verified(&ECDSA_P256_SHA256_FIXED, point),
            (jsonwebtoken::Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(key)) => verified(&ED25519, key),
            _ => Err(ring::error::Unspecified),
        }
        .map_err(|_| jsonwebtoken::signature::Error::new())
    }
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> jsonwebtoken::Algorithm {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use hmac::{Hmac, KeyInit as _, Mac as _};
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
        PublicKey::of(&serde_json::from_str(jwk).unwrap()).unwrap()
    }

    /// What a token says, as far as its signature goes.
    fn signed(token: &str, jwk: &str) -> Result<Map<String, Value>, Error> {
        let mut rules = Validation {
            validate_exp: false,
            validate_aud: false,
            ..Validation::default()
        };
        rules.required_spec_claims.clear();
        key(jwk).claims(token, &rules)
    }

    #[test]
    fn good_signatures_are_believed_and_changed_ones_are_not() {
        for (jwk, token) in [(EC_KEY, EC_TOKEN), (RSA_KEY, RSA_TOKEN)] {
            assert_eq!(signed(token, jwk).unwrap()["iss"], "joe");
            let (message, signature) = token.rsplit_once('.').unwrap();
            let changed = format!("{}A.{signature}", &message[..message.len() - 1]);
            assert_eq!(signed(&changed, jwk), Err(Error::Signature));
        }
        // This one's payload is no JSON: its signature is good, all the same.
        let token = format!("{ED_HEADER}.{ED_PAYLOAD}.{ED_SIGNATURE}");
        assert_eq!(signed(&token, ED_KEY), Err(Error::Form));
        let other = format!("{ED_HEADER}.{ED_HEADER}.{ED_SIGNATURE}");
        assert_eq!(signed(&other, ED_KEY), Err(Error::Signature));
    }

    #[test]
    fn the_header_does_not_choose_the_algorithm() {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let payload = encode(r#"{"sub":"mallory"}"#);
        for (header, error) in [
            (r#"{"alg":"none"}"#, Error::Form),
            (r#"{"alg":"HS256"}"#, Error::Algorithm),
            (r#"{"alg":"RS384"}"#, Error::Algorithm),
            (r#"{"alg":"PS256"}"#, Error::Algorithm),
            (r#"{"alg":"ES256"}"#, Error::Algorithm),
            (r#"{"alg":"rs256"}"#, Error::Form),
            (r#"{"alg":""}"#, Error::Form),
        ] {
            for signature in ["", "AAAA"] {
                let token = format!("{}.{payload}.{signature}", encode(header));
                assert_eq!(signed(&token, RSA_KEY).as_ref(), Err(&error), "{header}");
            }
        }
        let critical = format!("{}.{payload}.AAAA", encode(r#"{"alg":"RS256","crit":["b64"]}"#));
        assert_eq!(key_name(&critical), Err(Error::Critical));
    }

    #[test]
    fn a_public_key_is_no_shared_secret() {
        // As in the attack that RFC 8725 names first: the text of the public key, used for an HMAC.
        let secret = Hmac::<sha2::Sha256>::new_from_slice(ED_KEY.as_bytes()).unwrap();
        let message = format!("{}.e30", BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#));
        let mac = secret.chain_update(&message).finalize().into_bytes();
        let token = format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac));
        assert_eq!(signed(&token, ED_KEY), Err(Error::Algorithm));
    }

    #[test]
    fn keys_for_other_purposes_are_none() {
        for other in [
            r#"{"kty":"oct","k":"c2VjcmV0"}"#,
            &ED_KEY.replace("Ed25519", "X25519"),
            &ED_KEY.replace("Ed25519", "P-256"),
            &ED_KEY.replace("\"kid\"", "\"use\":\"enc\",\"kid\""),
            &ED_KEY.replace("\"kid\"", "\"alg\":\"HS256\",\"kid\""),
            &RSA_KEY.replace("\"e\"", "\"alg\":\"RSA-OAEP\",\"e\""),
            &EC_KEY.replace("\"y\"", "\"z\""),
            &EC_KEY.replace("P-256", "P-384"),
        ] {
            let jwk = serde_json::from_str::<Jwk>(other);
            assert!(jwk.is_ok_and(|jwk| PublicKey::of(&jwk).is_none()), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fall_over(token in "(?s).{0,60}|[A-Za-z0-9_-]{0,40}[.][A-Za-z0-9_-]{0,40}[.][A-Za-z0-9_-]{0,90}") {
            let _ = key_name(&token);
            prop_assert!(signed(&token, ED_KEY).is_err());
        }

        #[test]
        fn a_token_with_any_one_character_changed_is_not_believed(at in 0..EC_TOKEN.len(), to in "[A-Za-z0-9_.-]") {
            let mut changed = EC_TOKEN.to_owned();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(signed(&changed, EC_KEY).is_ok(), changed == EC_TOKEN);
        }
    }
}
