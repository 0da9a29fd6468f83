//! Whom the command line believes to be the server, and what it shows of itself.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use reqwest::{Certificate, ClientBuilder, Identity};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::settings::Trust;

/// Has a client trust whom it is to trust.
///
/// # Errors
/// A file can't be read or used; it is named with its variable.
pub(super) fn apply(
    builder: ClientBuilder,
    trust: &Trust,
    is_local: bool,
) -> anyhow::Result<ClientBuilder> {
    let own = trust.own.as_ref().filter(|_| is_local);
    if let (Some(own), None) = (own, &trust.authorities) {
        return Ok(builder.tls_backend_preconfigured(pinned(own, trust)?));
    }
    let mut builder = builder;
    if let Some(path) = &trust.authorities {
        let pem = read("AGENTRUNNER_CA_PATH", path)?;
        let known = Certificate::from_pem_bundle(&pem)
            .with_context(|| unusable("AGENTRUNNER_CA_PATH", path))?;
        builder = builder.tls_certs_merge(known);
    }
    if let Some((certificate, key)) = &trust.shown {
        let mut pem = read("AGENTRUNNER_CERT_PATH", certificate)?;
        pem.push(b'\n');
        pem.extend(read("AGENTRUNNER_KEY_PATH", key)?);
        let identity = Identity::from_pem(&pem)
            .with_context(|| unusable("AGENTRUNNER_CERT_PATH", certificate))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

/// Why nobody answers, when the certificate is the reason.
pub(super) fn hint(error: &reqwest::Error) -> &'static str {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        // The types are hidden in wrappers that show only their texts.
        let text = error.to_string();
        if text.contains("UnknownIssuer") || text.contains("invalid peer certificate") {
            return " with a certificate that is trusted; name its authority in AGENTRUNNER_CA_PATH";
        }
        if text.contains("CertificateRequired") {
            return " without a certificate of yours; name one in AGENTRUNNER_CERT_PATH and AGENTRUNNER_KEY_PATH";
        }
        source = error.source();
    }
    ""
}

fn read(variable: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{variable}: {} can't be read", path.display()))
}

fn unusable(variable: &str, path: &Path) -> String {
    format!("{variable}: {} can't be used", path.display())
}

/// The server of the same settings is known by its certificate itself: the name in it is that of the outside, and its
/// authority may be anybody.
fn pinned(own: &Path, trust: &Trust) -> anyhow::Result<ClientConfig> {
    let pem = read("TLS_CERT_PATH", own)?;
    let leaf =
        CertificateDer::from_pem_slice(&pem).with_context(|| unusable("TLS_CERT_PATH", own))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Pinned {
        leaf,
        provider: provider.clone(),
    });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some((certificate, key)) = &trust.shown else {
        return Ok(builder.with_no_client_auth());
    };
    let pem = read("AGENTRUNNER_CERT_PATH", certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.with_context(|| unusable("AGENTRUNNER_CERT_PATH", certificate))?;
    let pem = read("AGENTRUNNER_KEY_PATH", key)?;
    let secret = PrivateKeyDer::from_pem_slice(&pem)
        .ok()
        .with_context(|| unusable("AGENTRUNNER_KEY_PATH", key))?;
    builder
        .with_client_auth_cert(chain, secret)
        .with_context(|| unusable("AGENTRUNNER_CERT_PATH", certificate))
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct Pinned {
    leaf: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.leaf {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
