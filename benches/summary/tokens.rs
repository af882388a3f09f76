//! Different tokens of about 800 bytes, with about 300 bytes of claims.

use crate::servers::World;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::grpc::v1::{VerifyRequest, VerifyStreamRequest};
use prost::Message;

/// Encoded VerifyRequests, a token each.
pub fn verify_bodies(world: &World, count: usize) -> Vec<Vec<u8>> {
    let half = |odd: usize| (0..count / 2).map(move |number| number * 2 + odd);
    std::thread::scope(|scope| {
        let [one, other] = [0, 1].map(|odd| {
            scope.spawn(move || half(odd).map(|number| verify_body(world, number)).collect::<Vec<_>>())
        });
        let mut bodies = one.join().unwrap();
        bodies.extend(other.join().unwrap());
        bodies
    })
}

fn verify_body(world: &World, number: usize) -> Vec<u8> {
    VerifyRequest { token: Some(token(world, number)), ..VerifyRequest::default() }.encode_to_vec()
}

/// The same as items of a stream.
pub fn stream_bodies(bodies: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let item = |(id, body): (usize, &Vec<u8>)| {
        let verify = VerifyRequest::decode(body.as_slice()).unwrap();
        VerifyStreamRequest { id: id as u64 + 1, verify: Some(verify) }.encode_to_vec()
    };
    bodies.iter().enumerate().map(item).collect()
}

fn token(world: &World, number: usize) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(
        r#"{{"iss":"https://issuer.example.com","sub":"user-{number:08}","aud":"orders","iat":{now},"exp":{},"jti":"{:032x}","sid":"{:032x}","scope":"orders:read orders:write","roles":["customer"],"email":"user{number:08}@example.com","tenant":"example-01"}}"#,
        now + 3600,
        number as u128 * 7919,
        number as u128 * 104_729,
    );
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"at+jwt"}"#);
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let mut signature = vec![0; world.key.public_modulus_len()];
    world.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}
