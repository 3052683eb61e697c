//! How ingest is reached: whom to trust, who to be, and through which proxy. Settings go in, an HTTP client comes out.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::{Certificate, Identity, Proxy};

use super::ClientError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// ClickHouse may take its time; the batch is safe in the spool.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// Settings of the way to ingest.
#[derive(Args, Clone, Debug, Default)]
pub struct Transport {
    /// PEM file with the authorities that sign the certificate of ingest, in the place of the public ones.
    #[arg(long, env = "WHENCE_INGEST_CA", value_name = "FILE")]
    pub ingest_ca: Option<PathBuf>,
    /// PEM file with the certificate that this collector shows to ingest, and those up to its authority.
    #[arg(long, env = "WHENCE_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[arg(long, env = "WHENCE_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
    /// HTTP proxy to reach ingest through, with its user and password in the URL where it wants them; without this
    /// setting `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` apply.
    #[arg(long, env = "WHENCE_PROXY", value_name = "URL")]
    pub proxy: Option<String>,
}

impl Transport {
    /// A client that reaches `urls` so.
    pub fn client(&self, urls: &[String]) -> Result<reqwest::Client, ClientError> {
        let mut client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT);
        if let Some(path) = &self.ingest_ca {
            let authorities = Certificate::from_pem_bundle(&read(path)?).unwrap_or_default();
            if authorities.is_empty() {
                return Err(ClientError::NoCertificate { path: path.clone() });
            }
            client = client.tls_built_in_root_certs(false);
            client = authorities.into_iter().fold(client, reqwest::ClientBuilder::add_root_certificate);
        }
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            let pem = [read(certificate)?, read(key)?].concat();
            let (certificate, key) = (certificate.clone(), key.clone());
            let identity = Identity::from_pem(&pem).map_err(|source| ClientError::Identity {
                certificate,
                key,
                source,
            })?;
            client = client.identity(identity);
        }
        if let Some(proxy) = &self.proxy {
            let is_http = reqwest::Url::parse(proxy)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            let proxy = Some(proxy).filter(|_| is_http).and_then(|proxy| Proxy::all(proxy).ok());
            client = client.proxy(proxy.ok_or(ClientError::Proxy)?);
        } else if urls.iter().all(|url| is_loopback(url)) {
            // A proxy of the environment does not know this machine's loopback.
            client = client.no_proxy();
        }
        for url in urls.iter().filter(|url| url.starts_with("http://") && !is_loopback(url)) {
            tracing::warn!(
                url,
                "batches go over the network unencrypted; give ingest a certificate and use https://"
            );
        }
        client.build().map_err(ClientError::Tls)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|source| ClientError::File { path: path.into(), source })
}

fn is_loopback(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_the_network() {
        for url in ["http://127.0.0.1:8089", "https://localhost/x", "http://[::1]:1", "http://127.8.8.8"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://10.0.0.1", "https://localhost.example.com", "http://[fe80::1]:1", "127.0.0.1"] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn a_file_that_holds_no_certificate_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let transport = Transport { ingest_ca: Some(path.clone()), ..Transport::default() };
        let told = |transport: &Transport| transport.client(&[]).unwrap_err().to_string();
        assert!(told(&transport).contains("ca.pem"));
        std::fs::write(&path, "no certificate").unwrap();
        assert_eq!(told(&transport), format!("{} holds no certificate in PEM", path.display()));
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_telling_its_password() {
        for proxy in
            ["", "proxy.example", "socks5://me:secret@proxy.example", "http://me:secret@:80", "http://"]
        {
            let transport = Transport { proxy: Some(proxy.into()), ..Transport::default() };
            let told = transport.client(&[]).unwrap_err().to_string();
            assert!(told.contains("http://HOST:PORT") && !told.contains("secret"), "{told}");
        }
        let transport =
            Transport { proxy: Some("http://me:secret@proxy.example:3128".into()), ..Transport::default() };
        transport.client(&[]).unwrap();
    }
}
