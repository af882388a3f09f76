//! What there is to know about a server before it is relied on.

use super::dial::{Dialler, Link, Server};
use super::line::{Call, run};
use super::script::{PROBE, SCHEMA};
use crate::store::shared::{Durability, Report, ServerFault};
use redis::{Cmd, FromRedisValue, RedisError, Value};
use std::sync::Arc;

/// Connects anew and looks; the namespace stays as it is.
pub(super) async fn inspect(dialler: &Arc<Dialler>, key: &str) -> Result<Report, ServerFault> {
    let mut link = dialler.dial().await?;
    let looked = look(dialler, &mut link, key);
    let within = dialler.access.answer_within;
    let late = |_| dialler.fault(RedisError::from((redis::ErrorKind::Io, "no answer in time")));
    let settings = tokio::time::timeout(within, looked).await.map_err(late)??;
    let warnings = match settings {
        Some(settings) => warnings(&settings, &link.server, dialler.access.durability),
        None => vec![
            "the server does not tell its settings (CONFIG GET), so whether it keeps what it is given can't be \
             checked; see to it that `appendonly yes` and `maxmemory-policy noeviction` are set"
                .to_owned(),
        ],
    };
    Ok(Report { server: link.server.product.clone(), warnings })
}

struct Settings {
    appendonly: String,
    appendfsync: String,
    policy: String,
    maxmemory: String,
    least_replicas: String,
    save: String,
}

async fn look(dialler: &Dialler, link: &mut Link, key: &str) -> Result<Option<Settings>, ServerFault> {
    let told = |error| dialler.fault(error);
    let probe = Call { script: &PROBE, key, arguments: Vec::new() };
    run(link, &probe).await.map_err(told)?;
    // Scripts can't; answered at once.
    match dialler.access.durability {
        Durability::Acknowledged => {}
        Durability::Replicated(_) => drop(ask(link, &["WAIT", "0", "1"]).await.map_err(told)?),
        Durability::Fsynced => drop(ask(link, &["WAITAOF", "0", "0", "1"]).await.map_err(told)?),
    }
    check_namespace(dialler, link, key).await?;
    let mut values = Vec::new();
    for name in
        ["appendonly", "appendfsync", "maxmemory-policy", "maxmemory", "min-replicas-to-write", "save"]
    {
        // One at a time: several at once need 7.0.
        let asked = ask(link, &["CONFIG", "GET", name]).await;
        let pair = asked.ok().and_then(|value| Vec::<String>::from_redis_value(value).ok());
        let Some(value) = pair.and_then(|pair| pair.into_iter().nth(1)) else { return Ok(None) };
        values.push(value);
    }
    let mut values = values.into_iter();
    let mut next = || values.next().unwrap_or_default();
    Ok(Some(Settings {
        appendonly: next(),
        appendfsync: next(),
        policy: next(),
        maxmemory: next(),
        least_replicas: next(),
        save: next(),
    }))
}

async fn check_namespace(dialler: &Dialler, link: &mut Link, key: &str) -> Result<(), ServerFault> {
    let access = &dialler.access;
    let told = |error| dialler.fault(error);
    // Last what says that it is ours: another sidecar may be creating the namespace meanwhile, in one step.
    let there = ask(link, &["EXISTS", &format!("{key}head")]).await.map_err(told)?;
    let first = ask(link, &["XRANGE", &format!("{key}log"), "-", "+", "COUNT", "1"]).await.map_err(told)?;
    let head = ask(link, &["HGET", &format!("{key}head"), "schema"]).await.map_err(told)?;
    let schema = Option::<String>::from_redis_value(head).map_err(|error| ServerFault::Odd(error.into()))?;
    if schema.is_none() && !is_ours(first) {
        return Err(ServerFault::Foreign(access.namespace.clone()));
    }
    match schema.map(|schema| schema.parse::<u32>()) {
        Some(Ok(SCHEMA)) => Ok(()),
        Some(Ok(found)) if found > SCHEMA => {
            Err(ServerFault::NewerSchema { namespace: access.namespace.clone(), found, known: SCHEMA })
        }
        Some(Ok(found)) => {
            Err(ServerFault::OlderSchema { namespace: access.namespace.clone(), found, known: SCHEMA })
        }
        Some(Err(_)) => Err(ServerFault::Foreign(access.namespace.clone())),
        None if there == Value::Int(1) => Err(ServerFault::Foreign(access.namespace.clone())),
        None if access.migrate => Ok(()),
        None => Err(ServerFault::NoNamespace(access.namespace.clone())),
    }
}

/// A stream of ours, or nothing.
fn is_ours(entries: Value) -> bool {
    let Ok(entries) = Vec::<(String, Vec<Vec<u8>>)>::from_redis_value(entries) else { return false };
    entries.first().is_none_or(|(_, fields)| fields.first().is_some_and(|name| name == b"kind"))
}

async fn ask(link: &mut Link, words: &[&str]) -> Result<Value, RedisError> {
    let mut command = Cmd::new();
    command.arg(words);
    link.connection.send_packed_command(&command).await?.extract_error()
}

fn warnings(settings: &Settings, server: &Server, durability: Durability) -> Vec<String> {
    let mut warnings = Vec::new();
    if settings.appendonly != "yes" {
        let lost = if settings.save.is_empty() {
            "everything when it restarts"
        } else {
            "what came after its last snapshot when it restarts"
        };
        warnings.push(format!("the server loses {lost}: set `appendonly yes`"));
    } else if settings.appendfsync != "always" {
        warnings.push(match durability {
            Durability::Fsynced => format!(
                "`appendfsync {}` writes to the disk now and then, and `durability: fsynced` waits for that: many \
                 writes will come too late and fail; set `appendfsync always`",
                settings.appendfsync
            ),
            Durability::Acknowledged | Durability::Replicated(_) => {
                let lost =
                    if settings.appendfsync == "everysec" { "a second or two" } else { "half a minute" };
                format!("a crash of the server's machine loses the last {lost}: set `appendfsync always`")
            }
        });
    }
    if settings.policy.starts_with("allkeys-") && settings.maxmemory != "0" {
        warnings.push(format!(
            "the server can evict revocations when its memory is full (`maxmemory-policy {}`): set `noeviction`",
            settings.policy
        ));
    }
    if let Durability::Replicated(needed) = durability
        && server.replicas < u32::from(needed)
    {
        warnings.push(format!(
            "`durability: {durability}` needs {needed} replicas and {} are connected, so writes will fail: connect \
             more, or ask for fewer",
            server.replicas
        ));
    }
    if settings.least_replicas == "0" && server.replicas > 0 {
        warnings.push(
            "a primary that is cut off from its replicas goes on taking writes, which are lost when one of them \
             takes over: set `min-replicas-to-write 1`"
                .to_owned(),
        );
    }
    warnings
}
