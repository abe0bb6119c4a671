//! Who asks a registry: what the user has for it, and tokens.
//!
//! Nothing here is shown in messages or logs.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use ureq::http::header;

use super::super::web::{Headers, is_loopback, small};
use super::reference::DOCKER;
use super::{OciError, PullError, Registry};

/// Bytes of an answer with a token, at most.
const MAX_TOKEN: u64 = 1 << 20;
/// The name under which programs keep what Docker's registry is shown.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// A file of container programs, as far as it is used here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Kept {
    auths: std::collections::HashMap<String, Auth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    /// The user's name and password, with a colon between them, in Base64.
    auth: String,
}

/// What a registry is shown by basic authentication: what the first of these files has that has something for it.
pub fn credentials(files: &[PathBuf], host: &str) -> Option<String> {
    let docker = (host == DOCKER).then(|| DOCKER_KEY.to_owned());
    let names: Vec<String> = docker
        .into_iter()
        .chain([host.into(), format!("https://{host}"), format!("https://{host}/v2/")])
        .collect();
    files.iter().find_map(|path| {
        let kept: Kept = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let auth = names.iter().find_map(|name| kept.auths.get(name))?.auth.clone();
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        (!auth.is_empty() && auth.chars().all(known)).then(|| format!("Basic {auth}"))
    })
}

/// A registry's answer with a token.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry<'_> {
    /// What requests have to show after this challenge.
    pub(super) fn authorize(&self, url: &str, challenge: &str) -> Result<String, PullError> {
        let refused = || OciError::Refused { image: self.reference.to_string() };
        let wrong = |why: &str| OciError::Challenge { url: url.into(), why: why.into() };
        let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(self.credentials.clone().ok_or_else(refused)?);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(wrong("it is neither a token nor a password").into());
        }
        let parameters = parameters(rest);
        let value = |name: &str| {
            parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
        };
        let realm = value("realm").ok_or_else(|| wrong("it does not say where tokens are"))?;
        // A password must not be sent in the open, and a registry elsewhere must not make this computer's servers
        // answer.
        let is_protected = realm.starts_with("https://") || is_loopback(realm) && is_loopback(url);
        if !is_protected {
            return Err(wrong("where tokens are is not protected").into());
        }
        let scope = format!("repository:{}:pull", self.reference.repository);
        let mut token_url = format!("{realm}{}", if realm.contains('?') { '&' } else { '?' });
        if let Some(service) = value("service") {
            token_url += &format!("service={}&", encoded(service));
        }
        token_url += &format!("scope={}", encoded(value("scope").unwrap_or(&scope)));
        let headers: Headers =
            self.credentials.iter().map(|value| (header::AUTHORIZATION, value.clone())).collect();
        let answer = self.web.get(&token_url, &headers).map_err(|error| match error {
            PullError::Status { status, .. } if matches!(status.as_u16(), 401 | 403) => refused().into(),
            error => error,
        })?;
        let answer: Option<Answer> = serde_json::from_slice(&small(&token_url, answer, MAX_TOKEN)?).ok();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        // One with other characters is no header.
        let token = token.filter(|token| !token.is_empty() && token.bytes().all(|c| c.is_ascii_graphic()));
        Ok(format!("Bearer {}", token.ok_or_else(|| wrong("no token has come"))?))
    }
}

/// The parameters of a challenge: `name=value` or `name="value"`, with commas between them.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_owned();
        let mut value = String::new();
        rest = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut chars = quoted.char_indices();
                loop {
                    match chars.next() {
                        Some((_, '\\')) => value.extend(chars.next().map(|(_, c)| c)),
                        Some((at, '"')) => break &quoted[at + 1..],
                        Some((_, c)) => value.push(c),
                        None => break "",
                    }
                }
            }
            None => {
                let end = after.find(',').unwrap_or(after.len());
                value.push_str(after[..end].trim());
                &after[end..]
            }
        };
        found.push((name, value));
    }
    found
}

/// A text as a part of a URL's query.
fn encoded(text: &str) -> String {
    let mut url = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => url.push(byte as char),
            _ => url += &format!("%{byte:02X}"),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_taken_apart() {
        let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            parameters(r#"realm="https://a/t",service="b, \"c\"", scope=d:e,error="x"#),
            [of("realm", "https://a/t"), of("service", "b, \"c\""), of("scope", "d:e"), of("error", "x")]
        );
        assert_eq!(parameters("nothing"), []);
        assert_eq!(encoded("repository:a/b:pull"), "repository%3Aa%2Fb%3Apull");
    }

    #[test]
    fn the_first_file_that_has_something_counts() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["none", "bad", "one", "two"].map(|name| dir.path().join(name));
        fs::write(&files[1], "{").unwrap();
        fs::write(&files[2], r#"{"auths":{"h:5000":{"auth":"dTpw"},"x":{}},"credsStore":"s"}"#).unwrap();
        fs::write(
            &files[3],
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"},"y":{"auth":"a\nb"}}}"#,
        )
        .unwrap();
        let found = |host| credentials(&files, host);
        assert_eq!(found("h:5000").as_deref(), Some("Basic dTpw"));
        assert_eq!(found("docker.io").as_deref(), Some("Basic YTpi"));
        assert!(found("h").is_none() && found("x").is_none() && found("y").is_none());
    }
}
