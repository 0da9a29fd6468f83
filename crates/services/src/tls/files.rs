//! Certificates and keys as files, made into what TLS is spoken with. Every mistake is named with its file and variable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};

use super::certificate::Validity;

const CERT: &str = "TLS_CERT_PATH";
const KEY: &str = "TLS_KEY_PATH";
const CLIENT_CA: &str = "TLS_CLIENT_CA_PATH";
/// No file of these is larger.
const LARGEST: u64 = 1 << 20;

/// Which files TLS is spoken with.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate, followed by those that lead to an authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whether callers show certificates.
    pub callers: Option<Callers>,
}

/// Callers show certificates.
#[derive(Debug, Clone)]
pub struct Callers {
    /// The authorities that theirs come from.
    pub authorities: PathBuf,
    /// Who shows none is not let in.
    pub are_required: bool,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {}: {message}", file.display())]
pub struct TlsError {
    variable: &'static str,
    file: PathBuf,
    message: String,
}

pub(super) struct Loaded {
    pub(super) config: ServerConfig,
    pub(super) validity: Validity,
    pub(super) print: [u8; 32],
}

impl Files {
    /// Reads all of them.
    pub(super) fn load(&self) -> Result<Loaded, TlsError> {
        let mut print = Sha256::new();
        let mut read = |variable, file: &Path| {
            let bytes = read(variable, file)?;
            print.update((bytes.len() as u64).to_be_bytes());
            print.update(&bytes);
            Ok(bytes)
        };
        let certificate = read(CERT, &self.certificate)?;
        let key = read(KEY, &self.key)?;
        let authorities = match &self.callers {
            Some(callers) => Some(read(CLIENT_CA, &callers.authorities)?),
            None => None,
        };
        let chain = certificates(CERT, &self.certificate, &certificate)?;
        let fail = |variable, file: &Path, message: String| TlsError {
            variable,
            file: file.to_owned(),
            message,
        };
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
            // The parser's own message may repeat what stands there.
            let message = "it holds no private key that can be read; wanted is PEM: PKCS#8, PKCS#1 or SEC1, without a passphrase";
            fail(KEY, &self.key, message.to_owned())
        })?;
        let leaf = chain.first().ok_or_else(|| none(CERT, &self.certificate))?;
        let validity =
            Validity::of(leaf).map_err(|message| fail(CERT, &self.certificate, message))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| fail(CERT, &self.certificate, error.to_string()))?;
        let builder = match (&self.callers, authorities) {
            (Some(callers), Some(pem)) => {
                let roots = roots(&callers.authorities, &pem)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                let verifier = if callers.are_required {
                    verifier
                } else {
                    verifier.allow_unauthenticated()
                };
                let verifier: Arc<dyn ClientCertVerifier> = verifier
                    .build()
                    .map_err(|error| fail(CLIENT_CA, &callers.authorities, error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let message = match error {
                rustls::Error::InconsistentKeys(_) => format!(
                    "it is not the key of the certificate in {}; give the two that belong together",
                    self.certificate.display()
                ),
                other => other.to_string(),
            };
            fail(KEY, &self.key, message)
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Loaded {
            config,
            validity,
            print: print.finalize().into(),
        })
    }
}

fn read(variable: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    let fail = |message| TlsError {
        variable,
        file: file.to_owned(),
        message,
    };
    let metadata = std::fs::metadata(file).map_err(|error| fail(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(fail(format!("it is no file of at most {LARGEST} bytes")));
    }
    std::fs::read(file).map_err(|error| fail(error.to_string()))
}

fn certificates(
    variable: &'static str,
    file: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(chain) if chain.is_empty() => Err(none(variable, file)),
        Ok(chain) => Ok(chain),
        Err(_) => Err(TlsError {
            variable,
            file: file.to_owned(),
            message: "it is no PEM file: its lines can't be read".to_owned(),
        }),
    }
}

fn none(variable: &'static str, file: &Path) -> TlsError {
    TlsError {
        variable,
        file: file.to_owned(),
        message:
            "it holds no certificate; wanted is PEM, from BEGIN CERTIFICATE to END CERTIFICATE"
                .to_owned(),
    }
}

fn roots(file: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(CLIENT_CA, file, pem)? {
        roots.add(authority).map_err(|error| TlsError {
            variable: CLIENT_CA,
            file: file.to_owned(),
            message: error.to_string(),
        })?;
    }
    Ok(roots)
}
