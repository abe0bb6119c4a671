//! What container images are called by.

use std::fmt;

use super::super::global::{GlobalError, GlobalName};
use super::digest_of;

/// What says that a reference is one of a container image.
const SCHEME: &str = "oci://";
/// The registry of Docker, whose name is not that of its server.
pub const DOCKER: &str = "docker.io";
const DOCKER_SERVER: &str = "registry-1.docker.io";
/// Where repositories lie there whose names have no owner.
const DOCKER_OWNER: &str = "library";
/// Hosts that are known by their releases.
const NO_REGISTRIES: [&str; 1] = ["github.com"];
/// Characters of a tag.
const MAX_TAG: usize = 128;
/// Characters of a repository's name, as the distribution specification recommends.
const MAX_REPOSITORY: usize = 255;
/// Digits of a digest that stand for it in a name.
const SHORT: usize = 12;

/// A container image of a registry: `HOST[:PORT]/NAME[:TAG][@sha256:DIGEST]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    host: String,
    /// The name in the registry.
    pub repository: String,
    tag: Option<String>,
    /// The SHA-256 of the manifest, in hexadecimal.
    pub digest: Option<String>,
}

impl Reference {
    /// Reads one, with or without `oci://` before it; `None` if it is none. Without, the host has to look like one.
    pub fn new(text: &str) -> Option<Self> {
        let (rest, is_marked) = match text.strip_prefix(SCHEME) {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (host, rest) = rest.split_once('/')?;
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let (name, port) = host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
        let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
        let ends = |c: char| c.is_ascii_alphanumeric();
        if !name.starts_with(ends) || !name.ends_with(ends) || !name.chars().all(is_host) || !good_port {
            return None;
        }
        if !is_marked && (NO_REGISTRIES.contains(&host) || !host.contains(['.', ':']) && host != "localhost")
        {
            return None;
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest_of(digest)?)),
            None => (rest, None),
        };
        let (repository, tag) = rest.split_once(':').map_or((rest, None), |(name, tag)| (name, Some(tag)));
        let good_tag = |tag: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
            tag.len() <= MAX_TAG && tag.starts_with(first) && tag.chars().all(known)
        };
        let good = |part: &str| {
            let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            part.starts_with(known)
                && part.ends_with(known)
                && part.chars().all(|c| known(c) || matches!(c, '_' | '.' | '-'))
        };
        if repository.len() > MAX_REPOSITORY || !repository.split('/').all(good) || !tag.is_none_or(good_tag)
        {
            return None;
        }
        let host = if host == "index.docker.io" { DOCKER } else { host };
        let repository = match host == DOCKER && !repository.contains('/') {
            true => format!("{DOCKER_OWNER}/{repository}"),
            false => repository.into(),
        };
        Some(Self { host: host.to_ascii_lowercase(), repository, tag: tag.map(Into::into), digest })
    }

    /// The registry, with its port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The tag, which is `latest` if none is given.
    fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    /// What the manifest is asked for by.
    pub fn wanted(&self) -> String {
        match &self.digest {
            Some(digest) => format!("sha256:{digest}"),
            None => self.tag().into(),
        }
    }

    /// The beginning of all URLs. Connections to this computer are not encrypted.
    pub fn base(&self) -> String {
        let host = if self.host == DOCKER { DOCKER_SERVER } else { &self.host };
        let plain = format!("http://{host}/v2");
        let scheme = if super::super::web::is_loopback(&plain) { "http" } else { "https" };
        format!("{scheme}://{host}/v2/{}", self.repository)
    }

    /// What the image is called here. A port has no place in a name.
    pub fn name(&self) -> Result<GlobalName, GlobalError> {
        let tag = match &self.digest {
            // What a tag stands for may be something else by now.
            Some(digest) => format!("sha256-{}", &digest[..SHORT]),
            None => self.tag().to_owned(),
        };
        let library = format!("{DOCKER_OWNER}/");
        let own = self.repository.strip_prefix(&library).filter(|_| self.host == DOCKER);
        let repository = own.unwrap_or(&self.repository);
        GlobalName::new(&format!("{}/{repository}@{tag}", self.host.replace(':', "-")))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        match (&self.tag, &self.digest) {
            (tag, Some(digest)) => {
                tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
                write!(f, "@sha256:{digest}")
            }
            _ => write!(f, ":{}", self.tag()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_a_host_a_name_and_a_tag() {
        let show = |text: &str| {
            let reference = Reference::new(text).unwrap();
            (reference.base(), reference.wanted(), reference.name().unwrap().to_string())
        };
        let of = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            show("docker.io/i386/alpine:3.18"),
            of("https://registry-1.docker.io/v2/i386/alpine", "3.18", "docker.io/i386/alpine@3.18")
        );
        assert_eq!(
            show("docker.io/debian"),
            of("https://registry-1.docker.io/v2/library/debian", "latest", "docker.io/debian@latest")
        );
        assert_eq!(
            show("oci://localhost:5000/a/b:c"),
            of("http://localhost:5000/v2/a/b", "c", "localhost-5000/a/b@c")
        );
        let digest = "ab".repeat(32);
        let (_, wanted, name) = show(&format!("oci://registry/a@sha256:{digest}"));
        assert_eq!((wanted, name.as_str()), (format!("sha256:{digest}"), "registry/a@sha256-abababababab"));
        let (_, _, name) = show(&format!("oci://registry/a:1@sha256:{digest}"));
        assert_eq!(name, "registry/a@sha256-abababababab");
        for text in [
            "",
            "a",
            "a/b",
            "github.com/a/b",
            "./a.b/c",
            "docker.io/",
            "docker.io/A",
            "docker.io/a/../b",
            "docker.io/a:",
            "docker.io/a:-b",
            "docker.io/a@sha256:12",
            "oci://",
            "oci://h:99999/a",
            "oci://u@h/a",
            "oci://h/a b",
            "https://docker.io/a",
        ] {
            assert!(Reference::new(text).is_none(), "{text}");
        }
    }
}
