//! What an image keeps of the container that it was made of: which command it is for, and how that is run.
//!
//! Source: OCI Image Format Specification, "Image Configuration".

use serde_json::{Map, Value};

use super::ImageConfig;
use crate::guest::Exec;

/// Under which the configuration of an image has it.
pub(super) const KEY: &str = "container";
/// Programs that are process 1 of a whole system, however a container comes by them.
const INITS: [&str; 3] = ["init", "systemd", "openrc-init"];

/// The container's configuration.
pub(super) fn own(config: &ImageConfig) -> Option<&Map<String, Value>> {
    config.other.get(KEY)?.get("config")?.as_object()
}

/// The image was made of a container image, or built upon one that was.
pub(super) fn is_one(config: &ImageConfig) -> bool {
    config.other.get(KEY).is_some_and(|container| container.get("image").is_some())
}

fn words(own: &Map<String, Value>, key: &str) -> impl Iterator<Item = String> {
    let list = own.get(key).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(Into::into)
}

/// The command that is run if no other is given, as container programs do it: the entry point and its arguments.
pub fn command(config: &ImageConfig) -> Vec<String> {
    let parts = own(config).map(|own| words(own, "Entrypoint").chain(words(own, "Cmd")));
    parts.into_iter().flatten().collect()
}

/// A container with this configuration is to start an init of its own.
pub(super) fn starts_init(own: &Map<String, Value>) -> bool {
    let first = words(own, "Entrypoint").chain(words(own, "Cmd")).next().unwrap_or_default();
    INITS.contains(&first.rsplit('/').next().unwrap_or_default())
}

/// A command as the container is configured that the image was made of, if it was: what the command does not say itself
/// is that.
pub fn configured(mut exec: Exec, config: &ImageConfig) -> Exec {
    let Some(own) = own(config) else { return exec };
    let text = |key: &str| own.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let pair = |word: String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    // The later ones count.
    exec.env.splice(0..0, words(own, "Env").filter_map(pair));
    exec.dir = exec.dir.or_else(|| text("WorkingDir"));
    exec.user = exec.user.or_else(|| text("User"));
    exec
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(own: Value) -> ImageConfig {
        let mut config = ImageConfig::default();
        config.other.insert(KEY.into(), json!({ "config": own }));
        config
    }

    #[test]
    fn a_command_runs_as_its_container_is_configured() {
        let plain = Exec { env: vec![("B".into(), "flag".into())], ..Exec::default() };
        assert_eq!(configured(plain.clone(), &ImageConfig::default()), plain);
        let own = config(json!({
            "Env": ["A=1=2", "B=2", 3, "none"], "WorkingDir": "/srv", "User": "www", "Cmd": ["x"],
        }));
        let made = configured(plain.clone(), &own);
        let env = [("A", "1=2"), ("B", "2"), ("B", "flag")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(
            (&*made.env, made.dir.as_deref(), made.user.as_deref()),
            (&env[..], Some("/srv"), Some("www"))
        );
        let flags = Exec { dir: Some("/".into()), user: Some("0".into()), ..plain };
        let made = configured(flags, &own);
        assert_eq!((made.dir.as_deref(), made.user.as_deref()), (Some("/"), Some("0")));
    }

    #[test]
    fn the_command_is_the_entry_point_with_its_arguments() {
        assert!(command(&ImageConfig::default()).is_empty());
        assert!(command(&config(json!({ "Entrypoint": null, "Cmd": "x" }))).is_empty());
        assert_eq!(command(&config(json!({ "Cmd": ["a", "b"] }))), ["a", "b"]);
        assert_eq!(command(&config(json!({ "Entrypoint": ["e", "f"], "Cmd": ["a"] }))), ["e", "f", "a"]);
        let starts = |own: Value| starts_init(own.as_object().unwrap());
        assert!(starts(json!({ "Cmd": ["/sbin/init"] })) && !starts(json!({})));
        assert!(!starts(json!({ "Entrypoint": ["/bin/x"], "Cmd": ["/sbin/init"] })));
    }
}
