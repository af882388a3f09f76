//! Our tokens as another JWT library checks them, from what we publish.

use crate::support::{Home, ISSUER};
use countersign::clock::Clock;
use countersign::grpc::v1::{Attributes, GetJwksRequest};
use countersign::keys::{KeyFile, NewKey, SigningAlgorithm};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

#[tokio::test]
async fn our_tokens_verify_from_our_published_keys_with_another_library() {
    for algorithm in [SigningAlgorithm::EdDsa, SigningAlgorithm::Es256, SigningAlgorithm::Rs256] {
        let home = Home::new();
        let file = home.path("signing.json");
        std::fs::remove_file(&file).unwrap();
        let made = Clock::system().now().judged;
        KeyFile::generate(NewKey::Signing(algorithm), made).unwrap().create(&file).unwrap();
        let sidecar = home.start("").await;
        let attributes = Attributes { roles: vec!["buyer".into()], ..Attributes::default() };
        let tokens = sidecar.try_login("alice", "medium", attributes).await.unwrap().tokens.unwrap();

        let (status, published) = crate::lifecycle::get(&sidecar.ops, "/.well-known/jwks.json").await;
        assert_eq!(status, 200);
        let over_grpc = sidecar.keys().get_jwks(GetJwksRequest {}).await.unwrap().into_inner();
        assert_eq!(over_grpc.jwks_json, published, "one set, two ways");
        let keys: JwkSet = serde_json::from_str(&published).unwrap();
        let header = decode_header(&tokens.access_token).unwrap();
        let key = keys.find(header.kid.as_deref().unwrap()).unwrap();
        assert_eq!(key.common.key_algorithm.unwrap().to_string(), format!("{:?}", header.alg));

        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[ISSUER]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let key = DecodingKey::from_jwk(key).unwrap();
        let claims = decode::<Value>(&tokens.access_token, &key, &validation).unwrap().claims;
        assert_eq!((claims["sub"].as_str(), &claims["roles"][0]), (Some("alice"), &Value::from("buyer")));
        let forged = tokens.access_token.replacen("eyJ", "eyI", 2);
        assert!(decode::<Value>(&forged, &key, &validation).is_err());
    }
}
