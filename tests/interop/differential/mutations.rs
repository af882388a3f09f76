//! What is done to a good token, before it is signed or after.

use super::ISSUER;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::Value;

/// A small generator of numbers, the same for the same seed (splitmix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    fn among<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// A token before it is signed: members as they will stand in it.
pub(crate) struct Draft {
    now: u64,
    header: Vec<(String, String)>,
    claims: Vec<(String, String)>,
    after: Option<fn(&str, &mut Chance) -> String>,
    chance: u64,
}

impl Draft {
    pub(crate) fn good(now: u64, algorithm: &str, kid: &Value) -> Self {
        let owned = |members: &[(&str, String)]| {
            members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        Self {
            now,
            header: owned(&[
                ("alg", format!("\"{algorithm}\"")),
                ("typ", "\"at+jwt\"".into()),
                ("kid", kid.to_string()),
            ]),
            claims: owned(&[
                ("iss", format!("\"{ISSUER}\"")),
                ("sub", "\"alice\"".into()),
                ("aud", "\"shop\"".into()),
                ("iat", (now - 60).to_string()),
                ("exp", (now + 3600).to_string()),
                ("jti", "\"t\"".into()),
                ("scope", "\"read\"".into()),
            ]),
            after: None,
            chance: 0,
        }
    }

    fn set(members: &mut Vec<(String, String)>, name: &str, value: impl Into<String>) {
        members.retain(|(other, _)| other != name);
        members.push((name.to_owned(), value.into()));
    }

    fn claim(&mut self, name: &str, value: impl Into<String>) {
        Self::set(&mut self.claims, name, value);
    }

    fn head(&mut self, name: &str, value: impl Into<String>) {
        Self::set(&mut self.header, name, value);
    }

    pub(crate) fn header_text(&self) -> String {
        text(&self.header)
    }

    pub(crate) fn claims_text(&self) -> String {
        text(&self.claims)
    }

    /// What comes after signing.
    pub(crate) fn finish(&self, token: &str) -> String {
        self.after.map_or_else(|| token.to_owned(), |after| after(token, &mut Chance(self.chance)))
    }
}

fn text(members: &[(String, String)]) -> String {
    let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

type Mutation = (&'static str, fn(&mut Draft, &mut Chance));

/// By the name that a difference is explained with.
pub(crate) const MUTATIONS: &[Mutation] = &[
    ("harmless", |draft, chance| {
        let value = chance.among(&["null", "[1,2]", "1.5e300", "\"é\\u0000\"", "{\"a\":{\"b\":[]}}", "-0"]);
        draft.claim("extra", value);
    }),
    ("harmless", |draft, chance| {
        draft.head(chance.among(&["jku", "x5u", "cty", "x5t"]), "\"https://evil.example.com\"");
    }),
    ("harmless", |draft, chance| draft.claim("scope", chance.among(&["\"\"", "\"a b\"", "[\"a\"]", "[]"]))),
    ("audience", |draft, chance| {
        let value = chance.among(&[
            "[\"shop\"]",
            "[\"bank\",\"shop\"]",
            "\"bank\"",
            "[]",
            "[\"bank\"]",
            "\"Shop\"",
            "\"shop \"",
            "7",
            "null",
            "{}",
            "[7,\"shop\"]",
            "\"\"",
        ]);
        draft.claim("aud", value);
    }),
    ("issuer", |draft, chance| {
        let value = chance.among(&[
            "\"https://login.example.net/\"",
            "\"https://evil.example.com\"",
            "7",
            "null",
            "[\"https://login.example.net\"]",
            "\"\"",
        ]);
        draft.claim("iss", value);
    }),
    ("odd subject", |draft, chance| {
        draft.claim("sub", chance.among(&["7", "null", "[]", "{\"a\":1}", "\"\"", "true"]));
    }),
    ("gone", |draft, chance| {
        let name = chance.among(&["iss", "sub", "aud", "exp", "iat", "jti"]);
        draft.claims.retain(|(other, _)| other != name);
    }),
    ("time", |draft, chance| {
        let (now, day) = (draft.now, 86_400);
        let (name, value) = match chance.below(10) {
            0 => ("exp", now - 100),
            1 => ("exp", now - 100_000_000),
            2 => ("exp", now + 100_000_000),
            3 => ("nbf", now + 1000),
            4 => ("nbf", now - 1000),
            5 => ("iat", now + 1000),
            6 => ("iat", now - 2 * day),
            7 => ("exp", 0),
            8 => ("iat", 0),
            _ => ("nbf", 0),
        };
        draft.claim(name, value.to_string());
    }),
    ("odd time", |draft, chance| {
        let name = chance.among(&["exp", "nbf", "iat"]);
        let soon = format!("{}.75", draft.now + 600);
        let quoted = format!("\"{}\"", draft.now + 600);
        let power = format!("{}e1", (draft.now + 600) / 10);
        let value = chance.among(&[
            "-1",
            "null",
            "true",
            "[]",
            "\"\"",
            "\"soon\"",
            "1e400",
            "1e30",
            "99999999999999999999",
            &soon,
            &quoted,
            &power,
        ]);
        draft.claim(name, value);
    }),
    ("odd claim", |draft, chance| {
        draft.claim(
            chance.among(&["jti", "scope", "client_id", "sid", "roles", "azp", "auth_time"]),
            chance.among(&["7", "{}", "true", "[7]"]),
        );
    }),
    ("claim twice", |draft, chance| {
        let name = chance.among(&["sub", "exp", "aud", "x"]);
        for value in ["\"shop\"", "\"bank\""] {
            draft.claims.push((name.to_owned(), value.to_owned()));
        }
    }),
    ("header twice", |draft, chance| {
        let name = chance.among(&["alg", "kid", "x"]);
        for value in ["\"none\"", "\"RS256\""] {
            draft.header.push((name.to_owned(), value.to_owned()));
        }
    }),
    ("nested deeply", |draft, chance| {
        let depth = 10 + chance.below(60);
        draft.claim("deep", format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    }),
    ("algorithm", |draft, chance| {
        let value = chance.among(&[
            "\"none\"",
            "\"None\"",
            "\"HS256\"",
            "\"RS512\"",
            "\"PS256\"",
            "\"ES256\"",
            "\"RS256\"",
            "\"EdDSA\"",
            "7",
            "null",
            "\"\"",
            "[\"RS256\"]",
        ]);
        draft.head("alg", value);
    }),
    ("odd kid", |draft, chance| {
        let long = format!("\"{}\"", "k".repeat(300));
        draft.head(
            "kid",
            chance.among(&[
                "\"unknown\"",
                "7",
                "null",
                "\"../rsa\"",
                "\"RSA\"",
                "\"rsa\"",
                "\"p256\"",
                &long,
            ]),
        );
    }),
    ("no kid", |draft, _| draft.header.retain(|(name, _)| name != "kid")),
    ("typ", |draft, chance| {
        match chance.among(&[
            "",
            "\"JWT\"",
            "\"jwt\"",
            "\"application/at+jwt\"",
            "\"logout+jwt\"",
            "\"\"",
            "7",
            "null",
        ]) {
            "" => draft.header.retain(|(name, _)| name != "typ"),
            value => draft.head("typ", value),
        }
    }),
    ("crit", |draft, chance| {
        draft.head("crit", chance.among(&["[]", "[\"exp\"]", "[\"b64\"]", "\"b64\"", "null", "[\"x\"]"]))
    }),
    ("b64", |draft, chance| draft.head("b64", chance.among(&["true", "false", "null"]))),
    ("zip", |draft, _| draft.head("zip", "\"DEF\"")),
    ("embedded key", |draft, _| {
        draft.head("jwk", r#"{"kty":"oct","k":"AAAA","alg":"HS256"}"#);
    }),
    ("signature", |draft, chance| {
        draft.chance = chance.next();
        draft.after = Some(|token, chance| {
            let (input, signature) = token.rsplit_once('.').unwrap();
            let mut bytes =
                URL_SAFE.decode(format!("{signature}{}", "=".repeat((4 - signature.len() % 4) % 4))).unwrap();
            match chance.below(4) {
                0 => {
                    let at = chance.below(bytes.len());
                    bytes[at] ^= 1 << chance.below(8);
                }
                1 => bytes.truncate(chance.below(bytes.len())),
                2 => bytes.push(0),
                _ => bytes.fill(0),
            }
            format!("{input}.{}", crate::mint::encode(bytes))
        });
    }),
    ("payload changed", |draft, chance| {
        draft.chance = chance.next();
        draft.after = Some(|token, _| {
            let parts: Vec<&str> = token.split('.').collect();
            format!("{}.{}.{}", parts[0], crate::mint::encode(r#"{"sub":"mallory"}"#), parts[2])
        });
    }),
    ("loose base64", |draft, chance| {
        draft.chance = chance.next();
        draft.after = Some(|token, chance| {
            let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
            let part = &mut parts[chance.below(3)];
            match chance.below(5) {
                0 => part.push('='),
                1 => *part = part.replace('-', "+").replace('_', "/"),
                2 => part.insert(chance.below(part.len()), '\n'),
                3 => part.insert(0, ' '),
                _ => {
                    // Bits beyond the last byte.
                    let last = part.pop().unwrap();
                    part.push(char::from(last as u8 + 1));
                }
            }
            parts.join(".")
        });
    }),
    ("structure", |draft, chance| {
        draft.chance = chance.next();
        draft.after = Some(|token, chance| match chance.below(6) {
            0 => format!("{token}."),
            1 => format!(".{token}"),
            2 => token.replacen('.', "..", 1),
            3 => token.rsplit_once('.').unwrap().0.to_owned() + ".",
            4 => token.rsplit_once('.').unwrap().0.to_owned(),
            _ => format!("Bearer {token}"),
        });
    }),
];
