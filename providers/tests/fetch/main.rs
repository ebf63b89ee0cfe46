//! Images from servers that behave well, badly, and as an attacker would like.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says why and ends")]
#![expect(clippy::disallowed_methods, reason = "qemu-img makes the images of other programs")]

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use vmctl_providers::Digest;
use vmctl_providers::image::{
    FetchError, FetchOptions, FetchPhase, FetchProgress, Fetched, ImageCache, ImageError, RemoteImage, Stall,
};
use vmctl_tests::server::{Answer, Server};

/// A raw disk of this many KiB whose content is told by `seed`.
fn disk(kib: usize, seed: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..kib << 10).map(|n| (n / 7 + n / 1001) as u8 ^ seed).collect();
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    bytes[100_000 % (kib << 10)..].iter_mut().take(200_000).for_each(|byte| *byte = 0);
    bytes
}

struct World {
    folder: TempDir,
    cache: ImageCache,
    options: FetchOptions,
    phases: Mutex<Vec<FetchPhase>>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = FetchOptions {
            pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(20),
            stall: Stall { bytes: 1000, within: Duration::from_millis(300) },
            tries: 3,
            ..FetchOptions::default()
        };
        let cache = ImageCache::new(folder.path().join("images"));
        Self { folder, cache, options, phases: Mutex::default() }
    }

    async fn fetch(&self, url: &str, sha256: Option<&Digest>) -> Result<Fetched, ImageError> {
        let remote = RemoteImage { url: url.to_owned(), sha256: sha256.cloned() };
        let tell = |it: FetchProgress| self.phases.lock().unwrap().push(it.phase);
        self.cache.fetch(&remote, &self.options, &tell, &CancellationToken::new()).await
    }

    async fn error(&self, url: &str, sha256: Option<&Digest>) -> FetchError {
        match self.fetch(url, sha256).await {
            Err(ImageError::Fetch { source, .. }) => *source,
            other => panic!("{other:?}"),
        }
    }

    /// Everything in the cache's folder but folders.
    fn files(&self) -> Vec<PathBuf> {
        fn entries(folder: PathBuf) -> Vec<PathBuf> {
            let found = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            found.flat_map(|path| if path.is_dir() { entries(path) } else { vec![path] }).collect()
        }
        entries(self.folder.path().join("images"))
    }

    /// Images under their final names.
    fn images(&self) -> usize {
        self.files().iter().filter(|path| path.parent() == Some(self.cache.folder())).count()
    }

    fn downloads(&self) -> usize {
        self.files().iter().filter(|path| path.parent().is_some_and(|it| it.ends_with(".downloads"))).count()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn image_is_fetched_once_and_known_by_its_digest() {
    let body = disk(700, 1);
    let (served, digest) = (body.clone(), Digest::of(&body));
    let server = Server::start(move |asked| Answer::file(asked, &served, "\"a\""));
    let world = World::new();
    let url = server.url("/disk.raw");
    for sha256 in [None, Some(&digest), None] {
        let fetched = world.fetch(&url, sha256).await.unwrap();
        assert_eq!((&fetched.sha256, &fetched.identity.digest), (&digest, &digest));
        assert_eq!(fs::read(&fetched.image.path).unwrap(), body);
        assert_eq!(world.cache.known(&digest), Some((fetched.identity, fetched.image)));
        assert_eq!(fetched.upstream.etag.as_deref(), Some("\"a\""));
    }
    // The third only asked whether there is another version.
    assert_eq!(server.count("GET", "/disk.raw"), 2);
    assert_eq!((world.images(), world.downloads()), (1, 0));
    let said = world.cache.upstream(&url, &world.options).await.unwrap();
    assert_eq!((said.size, said.etag.as_deref()), (Some(body.len() as u64), Some("\"a\"")));
}

#[tokio::test]
async fn broken_download_goes_on_where_it_ended() {
    let body = disk(900, 2);
    let served = body.clone();
    let server = Server::start(move |asked| match asked.before {
        0 => Answer { cut: Some(300_000), ..Answer::file(asked, &served, "\"a\"") },
        1 => Answer::status(503).header("Retry-After", "3600"),
        _ => Answer::file(asked, &served, "\"a\""),
    });
    let world = World::new();
    let fetched = world.fetch(&server.url("/d"), None).await.unwrap();
    assert_eq!(fs::read(fetched.image.path).unwrap(), body);
    let from: Vec<_> = server.asked().iter().map(|asked| asked.from()).collect();
    assert_eq!(from, [None, Some(300_000), Some(300_000)]);
    let retries = world.phases.lock().unwrap().clone();
    assert!(
        retries.iter().any(|it| matches!(it, FetchPhase::Retrying { after, .. } if after.as_millis() == 20))
    );
}

#[tokio::test]
async fn another_process_goes_on_where_one_ended() {
    let body = disk(900, 3);
    let served = body.clone();
    let server = Server::start(move |asked| match asked.before {
        0..3 => Answer { cut: Some(50_000), ..Answer::file(asked, &served, "\"a\"") },
        _ => Answer::file(asked, &served, "\"a\""),
    });
    let mut world = World::new();
    world.options.tries = 1;
    let url = server.url("/d");
    for kept in [50_000, 100_000] {
        assert!(matches!(world.error(&url, None).await, FetchError::Broken { .. }));
        let part = world.files().into_iter().find(|path| path.extension().is_some_and(|it| it == "part"));
        assert_eq!(fs::metadata(part.unwrap()).unwrap().len(), kept);
        assert_eq!(world.images(), 0);
    }
    // Two tries brought something, the third does so again and then goes on.
    world.options.tries = 3;
    world.options.stall.bytes = 1;
    assert_eq!(fs::read(world.fetch(&url, None).await.unwrap().image.path).unwrap(), body);
    assert_eq!(world.downloads(), 0);
}

#[tokio::test]
async fn another_version_on_the_server_begins_anew() {
    // A server that heeds If-Range, one that has no ranges, and one that mixes versions without a word.
    for kind in 0..3 {
        let (old, new) = (disk(800, 4), disk(800, 5));
        let served = new.clone();
        let server = Server::start(move |asked| match (asked.before, kind) {
            (0, _) => Answer { cut: Some(200_000), ..Answer::file(asked, &old, "\"old\"") },
            (_, 0) => Answer::file(asked, &served, "\"new\""),
            (_, 1) => Answer::whole(served.clone()),
            (_, _) => {
                let mut asked = asked.clone();
                asked.headers.remove("if-range");
                Answer::file(&asked, &served, "\"new\"")
            }
        });
        let world = World::new();
        let fetched = world.fetch(&server.url("/d"), None).await.unwrap();
        assert!(fs::read(fetched.image.path).unwrap() == new, "kind {kind}");
    }
}

#[tokio::test]
async fn wrong_bytes_are_never_an_image() {
    let body = disk(300, 6);
    let digest = Digest::of(&body);
    let mut wrong = body.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let served = body.clone();
    let server = Server::start(move |asked| match asked.before {
        0 => Answer::file(asked, &wrong, "\"a\""),
        _ => Answer::file(asked, &served, "\"a\""),
    });
    let world = World::new();
    let url = server.url("/d");
    let error = world.error(&url, Some(&digest)).await;
    assert!(matches!(error, FetchError::Digest { expected, .. } if expected == digest));
    assert_eq!(world.files(), [] as [PathBuf; 0]);
    world.fetch(&url, Some(&digest)).await.unwrap();
}

#[tokio::test]
async fn part_that_was_spoiled_is_thrown_away() {
    let body = disk(300, 7);
    let digest = Digest::of(&body);
    let served = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &served, "\"a\""));
    let world = World::new();
    let downloads = world.cache.folder().join(".downloads");
    fs::create_dir_all(&downloads).unwrap();
    fs::write(downloads.join(format!("{}.part", digest.hex())), vec![9; 100_000]).unwrap();
    let fetched = world.fetch(&server.url("/d"), Some(&digest)).await.unwrap();
    assert_eq!(fs::read(fetched.image.path).unwrap(), body);
    assert_eq!(server.count("GET", "/d"), 2);
}

#[tokio::test]
async fn what_is_no_image_is_refused_and_leaves_nothing() {
    let page = "<!DOCTYPE html><html><body>Log in to the network</body></html>".repeat(50);
    let backed = {
        let mut head = vec![0; 65536 * 4];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
        head[8..16].copy_from_slice(&4096_u64.to_be_bytes());
        head
    };
    let bodies: Vec<Vec<u8>> = vec![
        page.clone().into_bytes(),
        gzip(page.as_bytes()),
        backed.clone(),
        gzip(&backed),
        b"# Disk DescriptorFile\nversion=1\n".to_vec(),
        Vec::new(),
        gzip(&gzip(&disk(300, 1))),
        gzip(&disk(300, 1))[..2000].to_vec(),
    ];
    for (index, body) in bodies.into_iter().enumerate() {
        let server = Server::start(move |asked| Answer::file(asked, &body, "\"a\""));
        let world = World::new();
        let error = world.error(&server.url("/d"), None).await;
        let is_expected = match index {
            0 | 1 => matches!(error, FetchError::Page),
            7 => matches!(error, FetchError::Unpack { .. }),
            _ => matches!(error, FetchError::Refused(_)),
        };
        assert!(is_expected, "{index}: {error:?}");
        assert_eq!(world.files(), [] as [PathBuf; 0], "{index}");
    }
}

/// S13: 64 MiB of zeros in a few bytes, and more than a server says that it has.
#[tokio::test]
async fn bomb_stops_at_the_limit_and_gives_the_disk_back() {
    let mut zeros = disk(300, 1);
    zeros.resize(64 << 20, 0);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&zeros).unwrap();
    let (xz, zstd) = (liblzma::encode_all(&zeros[..], 0).unwrap(), zstd::encode_all(&zeros[..], 1).unwrap());
    let bombs = [gzip(&zeros), bzip2.finish().unwrap(), xz, zstd];
    // Several frames one behind the other, each of them small.
    let frames = [zstd::encode_all(&zeros[..512 << 10], 1).unwrap().repeat(3)];
    for body in bombs.into_iter().chain(frames) {
        assert!(body.len() < 1 << 20);
        let server = Server::start(move |asked| Answer::file(asked, &body, "\"a\""));
        let mut world = World::new();
        world.options.max_bytes = 1 << 20;
        let error = world.error(&server.url("/bomb"), None).await;
        assert_eq!(error.to_string(), "it has more than 1 MiB");
        assert_eq!(world.files(), [] as [PathBuf; 0]);
        // With the room that it needs it is an image like any other.
        world.options.max_bytes = 64 << 20;
        world.fetch(&server.url("/bomb"), None).await.unwrap();
    }
    let server =
        Server::start(|_| Answer::whole(disk(300, 1)).header("Content-Length", &(1_u64 << 40).to_string()));
    let mut world = World::new();
    world.options.max_bytes = 1 << 20;
    let error = world.error(&server.url("/large"), None).await;
    assert!(matches!(error, FetchError::TooLarge { limit: 1_048_576 }), "{error:?}");
    assert_eq!(world.files(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn silent_server_is_given_up() {
    let body = disk(300, 8);
    let server =
        Server::start(move |asked| Answer { stall: Some(500), ..Answer::file(asked, &body, "\"a\"") });
    let error = World::new().error(&server.url("/d"), None).await;
    assert!(matches!(error, FetchError::Stalled { .. }), "{error:?}");
}

#[tokio::test]
async fn redirects_keep_within_bounds_and_take_no_login_along() {
    let body = disk(100, 9);
    let other = Server::start(move |asked| Answer::file(asked, &body, "\"a\""));
    let target = other.url("/d");
    let server = Server::start(move |asked| {
        let to = match asked.path.as_str() {
            "/loop" => "/loop",
            "/file" => "file:///etc/passwd",
            _ => target.as_str(),
        };
        Answer::status(302).header("Location", to)
    });
    let world = World::new();
    for path in ["/loop", "/file"] {
        assert!(matches!(world.error(&server.url(path), None).await, FetchError::Redirect { .. }));
    }
    assert_eq!(server.count("GET", "/loop"), 6);

    let url = server.url("/d").replace("http://", "http://me:secret@");
    let fetched = world.fetch(&url, None).await.unwrap();
    assert!(server.asked().iter().any(|asked| asked.headers.contains_key("authorization")));
    assert!(other.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));
    let written = world.files().iter().filter_map(|path| fs::read_to_string(path).ok()).collect::<String>();
    assert!(!written.contains("secret") && fetched.image.path.exists());
}

#[tokio::test]
async fn server_of_the_internet_may_not_send_inside() {
    let body = disk(100, 13);
    let digest = Digest::of(&body);
    let inner = Server::start(move |asked| Answer::file(asked, &body, "\"a\""));
    let by_address = inner.url("/d");
    let by_name = by_address.replace("127.0.0.1", "inner.example");
    let outer = Server::start_at(Ipv4Addr::new(127, 0, 0, 2), move |asked| {
        let to = if asked.path == "/name" { &by_name } else { &by_address };
        Answer::status(302).header("Location", to)
    });
    let mut world = World::new();
    world.options.hosts = [("inner.example".to_owned(), Ipv4Addr::LOCALHOST.into())].into();
    world.options.public = vec![Ipv4Addr::new(127, 0, 0, 2).into()];
    for path in ["/address", "/name"] {
        let error = world.error(&outer.url(path), Some(&digest)).await;
        assert!(matches!(error, FetchError::Inside { .. }), "{path}: {error:?}");
    }
    assert!(inner.asked().is_empty(), "nobody inside heard of it");
    // The same way is open where the first server is inside as well.
    world.options.public = Vec::new();
    world.fetch(&outer.url("/name"), Some(&digest)).await.unwrap();
}

#[tokio::test]
async fn two_at_once_download_once() {
    let body = disk(900, 10);
    let server = Server::start(move |asked| Answer::file(asked, &body, "\"a\""));
    let (one, url) = (World::new(), server.url("/d"));
    let (first, second) = tokio::join!(one.fetch(&url, None), one.fetch(&url, None));
    assert_eq!(first.unwrap().image, second.unwrap().image);
    assert_eq!(server.count("GET", "/d"), 1);
    assert!(one.phases.lock().unwrap().contains(&FetchPhase::Waiting));
}

#[tokio::test]
async fn artifact_of_a_registry_is_verified_from_its_manifest_to_its_last_byte() {
    let body = disk(300, 11);
    let layer = Digest::of(&body);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[
            {{"mediaType":"text/markdown","digest":"{}","size":4}},
            {{"mediaType":"application/octet-stream","digest":"{layer}","size":{},"annotations":{{"org.opencontainers.image.title":"../../x"}}}}]}}"#,
        Digest::of("read"),
        body.len()
    );
    let (digest, blob) = (Digest::of(&manifest), format!("/v2/team/disk/blobs/{layer}"));
    let served = manifest.clone();
    let server = Server::start(move |asked| {
        let is_allowed = asked.headers.get("authorization").is_some_and(|value| value == "Bearer t0ken");
        match asked.path.as_str() {
            path if path.starts_with("/token") => Answer::whole(r#"{"token":"t0ken"}"#),
            _ if !is_allowed => {
                let host = &asked.headers["host"];
                let realm = format!("Bearer realm=\"http://{host}/token\",service=\"test\"");
                Answer::status(401).header("WWW-Authenticate", &realm)
            }
            path if path == blob => Answer::file(asked, &body, "\"b\""),
            path if path.starts_with("/v2/team/disk/manifests/") => Answer::whole(served.clone()),
            _ => Answer::status(404),
        }
    });
    let world = World::new();
    for version in [":12".to_owned(), format!("@{digest}")] {
        let fetched =
            world.fetch(&format!("oci://{}/team/disk{version}", server.host()), None).await.unwrap();
        assert_eq!(fetched.sha256, layer);
        assert_eq!(fetched.upstream.manifest.as_ref(), Some(&digest));
    }
    let gets = server.asked().iter().filter(|asked| asked.path.contains("/blobs/")).count();
    assert_eq!(gets, 1);
    let wrong = format!("oci://{}/team/disk@{}", server.host(), Digest::of("other"));
    assert!(matches!(world.error(&wrong, None).await, FetchError::Digest { .. }));
    let missing = format!("oci://{}/team/none:1", server.host());
    assert!(matches!(world.error(&missing, None).await, FetchError::Status { status: 404, .. }));
}

#[tokio::test]
async fn compressed_image_is_unpacked_and_a_foreign_one_converted() {
    let body = disk(700, 12);
    let world = World::new();
    let raw = world.folder.path().join("disk.raw");
    fs::write(&raw, &body).unwrap();
    let packed = gzip(&body);
    let served = packed.clone();
    let server = Server::start(move |asked| Answer::file(asked, &served, "\"a\""));
    let fetched = world.fetch(&server.url("/d"), None).await.unwrap();
    assert_eq!((fetched.sha256, fetched.identity.digest), (Digest::of(&packed), Digest::of(&body)));
    assert_eq!(fs::read(fetched.image.path).unwrap(), body);

    for (format, options) in [
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vdi", "static=off"),
        ("vhdx", "subformat=dynamic"),
        ("vpc", "subformat=dynamic"),
    ] {
        let file = world.folder.path().join(format!("disk.{format}"));
        let made = std::process::Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", format, "-o", options])
            .args([&raw, &file])
            .status();
        assert!(made.unwrap().success());
        let identity = world.cache.identify(&file).unwrap();
        assert_eq!(identity.format.as_str(), "qcow2", "{format}");
        let image = world.cache.import(&file, &identity).unwrap();
        let back = world.folder.path().join("back.raw");
        let made = std::process::Command::new("qemu-img")
            .args(["convert", "-f", "qcow2", "-O", "raw"])
            .args([&image.path, &back])
            .status();
        assert!(made.unwrap().success());
        let content = fs::read(&back).unwrap();
        assert!(
            content.starts_with(&body) && content[body.len()..].iter().all(|byte| *byte == 0),
            "{format}"
        );
    }
    for (format, options) in
        [("vmdk", "subformat=monolithicFlat"), ("vmdk", "subformat=twoGbMaxExtentSparse")]
    {
        let file = world.folder.path().join("external.vmdk");
        let made = std::process::Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", format, "-o", options])
            .args([&raw, &file])
            .status();
        assert!(made.unwrap().success());
        world.cache.identify(&file).unwrap_err();
    }
    // A VHDX image has blocks of 8 MiB, of which the disk fills one in part.
    for (format, missing) in [("vmdk", 500 << 10), ("vdi", 500 << 10), ("vpc", 500 << 10), ("vhdx", 8 << 20)]
    {
        let file = world.folder.path().join("short");
        let made = std::process::Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", format])
            .args([&raw, &file])
            .status();
        assert!(made.unwrap().success());
        let whole = fs::File::options().write(true).open(&file).unwrap();
        whole.set_len(whole.metadata().unwrap().len() - missing).unwrap();
        world.cache.identify(&file).expect_err(format);
    }
    assert_eq!(world.downloads(), 0);
}
