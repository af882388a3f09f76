//! TLS to the server: always verified, by the system's authorities or the operator's.

use crate::store::{Access, ServerFault};
use hyper_rustls::ConfigBuilderExt;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Reads the files and makes a connector of them.
pub(in crate::store) fn connector(access: &Access) -> Result<MakeRustlsConnect, ServerFault> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ServerFault::Odd(error.into()))?;
    let builder = match &access.ca_file {
        Some(path) => builder.with_root_certificates(authorities(path)?),
        None => builder.with_native_roots().map_err(|error| ServerFault::Odd(error.into()))?,
    };
    let config = match &access.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let certificates = certificates(chain)?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, &error))?;
            builder.with_client_auth_cert(certificates, secret).map_err(|error| fault(key, &error))?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

fn authorities(path: &Path) -> Result<RootCertStore, ServerFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| fault(path, &error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServerFault> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| fault(path, &error))?.collect();
    let found = found.map_err(|error| fault(path, &error))?;
    if found.is_empty() { Err(fault(path, &"no certificate in the file")) } else { Ok(found) }
}

fn fault(path: &Path, why: &dyn ToString) -> ServerFault {
    ServerFault::File { path: path.to_owned(), why: why.to_string() }
}
