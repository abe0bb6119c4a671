//! Programs in the guest for tasks of an asynchronous runtime. Its streams have the methods of both worlds, so that these
//! are apart from those of [`super::run`].

use env86::guest::{Guest, GuestError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Programs for tasks: eight at once on one thread, each with more input than there is room for.
pub async fn programs(guest: &Guest) -> Result<(), GuestError> {
    let one = async |n: usize| -> Result<(), GuestError> {
        let data = vec![n as u8; 700_000];
        let mut command = guest.command("sh");
        let mut child =
            command.args(["-c", "cat; echo end >&2; exit $0", &n.to_string()]).spawn_async().await?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (mut stdin, mut stdout) = (stdin.expect("it has one"), stdout.expect("it has one"));
        let mut back = Vec::new();
        let write = async {
            stdin.write_all(&data).await?;
            stdin.shutdown().await
        };
        let (written, read) = tokio::join!(write, stdout.read_to_end(&mut back));
        written?;
        read?;
        let output = child.wait_with_output_async().await?;
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(n as i32), &b"end\n"[..]));
        assert!(back == data);
        Ok(())
    };
    let all = futures_util::future::join_all((0..8).map(one)).await;
    all.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(guest.command("echo").arg("1").output_async().await?.stdout, b"1\n");
    assert_eq!(guest.command("false").status_async().await?.code(), Some(1));
    let missing = guest.command("no-such-program").spawn_async().await.map(drop);
    assert!(matches!(missing, Err(GuestError::Start { missing: true, .. })), "{missing:?}");
    Ok(())
}
