//! TLS: a server that no one vouches for is refused, a certificate for another name is, too, and secrets are in no log.

#![cfg(all(unix, feature = "pull"))]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use env86::image::{Image, Watch, create, export};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A certificate that no one but itself vouches for, as systems keep those that they trust, and its key.
///
/// openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj "/CN=env86 test NAME"
/// -addext "subjectAltName=IP:127.0.0.1" -addext "basicConstraints=critical,CA:FALSE" -keyout here.key -out here.pem
type Own = (&'static str, &'static str);
const HERE: Own = (include_str!("data/tls/here.pem"), include_str!("data/tls/here.key"));
/// The same for images.example.org.
const ELSEWHERE: Own = (include_str!("data/tls/elsewhere.pem"), include_str!("data/tls/elsewhere.key"));

/// A server.
struct Server {
    address: String,
    /// Requests that came through.
    asked: Arc<AtomicUsize>,
}

impl Server {
    /// It answers each request with these bytes.
    fn new(host: &str, (certificate, key): Own, body: Vec<u8>) -> Self {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let (config, asked) = (Arc::new(config), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind(format!("{host}:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, seen, body) = (Arc::clone(&config), Arc::clone(&seen), body.clone());
                // A client that refuses the certificate goes away.
                thread::spawn(move || -> std::io::Result<()> {
                    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
                    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
                    let mut path = String::new();
                    loop {
                        let mut line = String::new();
                        reader.read_line(&mut line)?;
                        if path.is_empty() {
                            path.clone_from(&line);
                        }
                        if line.trim().is_empty() {
                            break;
                        }
                    }
                    seen.fetch_add(1, Ordering::Relaxed);
                    let stream = reader.get_mut();
                    let (status, body) =
                        if path.contains(".sha256") { ("404 No", &b""[..]) } else { ("200 OK", &*body) };
                    write!(
                        stream,
                        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                        body.len()
                    )?;
                    stream.write_all(body)?;
                    stream.conn.send_close_notify();
                    stream.flush()
                });
            }
        });
        Self { address: format!("{host}:{port}"), asked }
    }
}

fn archive(dir: &Path) -> Vec<u8> {
    fs::create_dir(dir.join("tree")).unwrap();
    fs::write(dir.join("tree/file"), "hello").unwrap();
    create::from_dir(&dir.join("tree"), &dir.join("image"), &create::Options::default()).unwrap();
    let mut bytes = Vec::new();
    export(&Image::open(dir.join("image")).unwrap(), &mut bytes, &Watch::default()).unwrap();
    bytes
}

fn pull(dir: &Path, from: &str, trusted: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_env86"));
    command.args(["pull", from]).env("ENV86_PATH", dir.join("root")).env("DOCKER_CONFIG", dir);
    command.env_remove("SSL_CERT_DIR").env("ENV86_LOG", "trace");
    let store = dir.join("trusted.pem");
    fs::write(&store, trusted.unwrap_or_default()).unwrap();
    if trusted.is_some() {
        command.env("SSL_CERT_FILE", &store);
    }
    command.output().unwrap()
}

#[test]
fn a_server_is_believed_only_if_its_certificate_is() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = archive(dir.path());
    let server = Server::new("127.0.0.1", HERE, bytes.clone());
    let url = format!("https://{}/image.tgz", server.address);
    let refused = |output: Output, from: &str| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(from) && said.contains("certificate"), "{said}");
        assert!(!dir.path().join("root/image").exists());
    };
    // No one vouches for it, neither as a web server nor as a registry.
    refused(pull(dir.path(), &url, None), &url);
    // Another address of this computer, to which registries are not asked in the open.
    let registry = Server::new("127.0.0.2", HERE, Vec::new());
    refused(pull(dir.path(), &format!("oci://{}/box:1", registry.address), None), &registry.address);
    // It is another one's.
    let other = Server::new("127.0.0.1", ELSEWHERE, bytes);
    let other_url = format!("https://{}/image.tgz", other.address);
    refused(pull(dir.path(), &other_url, Some(ELSEWHERE.0)), &other_url);
    let asked = [&server, &registry, &other].map(|server| server.asked.load(Ordering::Relaxed));
    assert_eq!(asked, [0, 0, 0]);
    // The system trusts it.
    let output = pull(dir.path(), &url, Some(HERE.0));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(dir.path().join("root/image/local/image.json").exists());
}
