//! Tracing, from its settings to the one who decides and the one who sends.

use crate::app::rooms::chain;
use crate::clock::Clock;
use crate::config::{Config, Fault};
use crate::ops::Metrics;
use crate::ops::trace::{Exporter, ExporterSettings, Tracer, read_headers};
use std::sync::Arc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Both ends of tracing. Connects to nobody yet.
pub(super) struct Traced {
    pub(super) tracer: Arc<Tracer>,
    pub(super) exporter: Exporter,
}

/// Nothing where tracing is off, or where a fault was noted.
pub(super) fn build_tracing(
    config: &Config,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    faults: &mut Vec<Fault>,
) -> Option<Traced> {
    let settings = config.tracing.as_ref()?;
    let mut wrong = |setting: &str, why: String| {
        faults.push(config.fault_at(&format!("tracing.{setting}"), why));
    };
    if let Some(Err(error)) = settings.headers_file.as_deref().map(read_headers) {
        wrong("headers_file", format!("the file's content: {}", chain(&error)));
        return None;
    }
    let channel = match channel(settings) {
        Ok(channel) => channel,
        Err((setting, why)) => {
            wrong(setting, why);
            return None;
        }
    };
    let tracer = Tracer::new(settings.ratio, settings.queue, clock.clone(), Arc::clone(metrics));
    let built = tracer.and_then(|tracer| {
        let tracer = Arc::new(tracer);
        let settings = ExporterSettings {
            channel,
            service: settings.service_name.as_str().into(),
            headers_file: settings.headers_file.clone(),
            timeout: settings.timeout,
            send_every: settings.send_every,
        };
        Ok(Traced { exporter: Exporter::new(Arc::clone(&tracer), settings)?, tracer })
    });
    built.map_err(|error| wrong("", error.to_string())).ok()
}

fn channel(settings: &crate::config::Tracing) -> Result<Channel, (&'static str, String)> {
    let endpoint = Endpoint::from_shared(settings.endpoint.clone());
    let endpoint = endpoint.map_err(|error| ("endpoint", chain(&error)))?.connect_timeout(settings.timeout);
    // A collector that is gone without a word is found out within an attempt; asked only while one is under way.
    let endpoint =
        endpoint.http2_keep_alive_interval(settings.timeout / 4).keep_alive_timeout(settings.timeout / 4);
    if endpoint.uri().scheme_str() != Some("https") {
        return Ok(endpoint.connect_lazy());
    }
    let tls = ClientTlsConfig::new();
    let tls = match &settings.ca_file {
        Some(file) => {
            let pem = std::fs::read(file).map_err(|error| ("ca_file", error.to_string()))?;
            tls.ca_certificate(Certificate::from_pem(pem))
        }
        None => tls.with_native_roots(),
    };
    let endpoint = endpoint.tls_config(tls).map_err(|error| ("ca_file", chain(&error)))?;
    Ok(endpoint.connect_lazy())
}
