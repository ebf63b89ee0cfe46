//! The serial console of a VM: a WebSocket of its server, as a stream of bytes.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use futures_util::{SinkExt, StreamExt};

use super::client::{PropolisError, VERSION_HEADER};
use std::net::SocketAddr;

/// How long a server may take to greet.
const GREETING: Duration = Duration::from_secs(10);

/// The longest message that is taken; servers send what a UART holds, and history in pieces.
const MOST_MESSAGE: usize = 4 << 20;

/// How much is carried to the guest at once.
const PIECE: usize = 4096;

/// The WebSocket of a server's serial line.
pub(super) fn url(address: SocketAddr) -> String {
    format!("ws://{address}/instance/serial")
}

/// Connects to the serial line of the VM at `address`; what it printed before, the last `replay` bytes, comes first.
///
/// What is written to the stream is typed. It ends when the VM does. The work is done by a task of the runtime, for as
/// long as the stream is held.
pub async fn open(address: SocketAddr, version: &str, replay: u64) -> Result<UnixStream, PropolisError> {
    const WHAT: &str = "show its console";
    let broken = |said: String| PropolisError::Broken { address, what: WHAT, said };
    let connecting = async {
        let stream = match TcpStream::connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(PropolisError::Nobody { address, source: error });
            }
            stream => stream.map_err(|error| broken(error.to_string()))?,
        };
        let mut request = format!("{}?most_recent={replay}", url(address))
            .into_client_request()
            .map_err(|error| broken(error.to_string()))?;
        let version = HeaderValue::from_str(version).map_err(|error| broken(error.to_string()))?;
        request.headers_mut().insert(VERSION_HEADER, version);
        let config = WebSocketConfig::default().max_message_size(Some(MOST_MESSAGE));
        let greeted = client_async_with_config(request, stream, Some(config)).await;
        greeted.map(|(socket, _)| socket).map_err(|error| refusal(address, WHAT, error))
    };
    let socket = timeout(GREETING, connecting).await.map_err(|_| PropolisError::Silent {
        address,
        what: WHAT,
        after: GREETING,
    })??;
    let (ours, theirs) = UnixStream::pair().map_err(|error| broken(error.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = carry(socket, theirs).await {
            tracing::debug!(%error, "the console was lost");
        }
    });
    Ok(ours)
}

fn refusal(address: SocketAddr, what: &'static str, error: WsError) -> PropolisError {
    match error {
        WsError::Http(answer) => {
            let status = answer.status();
            let body = answer.body().clone().unwrap_or_default();
            let told: super::api::ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
            let said = match told.message.as_str() {
                "" => status.to_string(),
                message => format!("{} ({message})", status.as_u16()),
            };
            let status = status.as_u16();
            if status >= 500 {
                PropolisError::Failed { address, what, status, said, log: None }
            } else {
                PropolisError::Refused { address, what, status, code: told.error_code, said }
            }
        }
        error => PropolisError::Broken { address, what, said: error.to_string() },
    }
}

/// Carries bytes both ways until either side is done.
async fn carry(socket: WebSocketStream<TcpStream>, stream: UnixStream) -> Result<(), WsError> {
    let (mut to_server, mut from_server) = socket.split();
    let (mut from_us, mut to_us) = stream.into_split();
    let mut typed = vec![0; PIECE];
    loop {
        tokio::select! {
            message = from_server.next() => match message.transpose()? {
                Some(Message::Binary(bytes)) => to_us.write_all(&bytes).await?,
                // The server says so when the VM moves elsewhere, which we never ask for.
                Some(Message::Text(text)) => tracing::debug!(%text, "the server says"),
                Some(Message::Close(_)) | None => return Ok(()),
                Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            },
            read = from_us.read(&mut typed) => match read? {
                0 => return to_server.send(Message::Close(None)).await,
                length => to_server.send(Message::Binary(Bytes::copy_from_slice(&typed[..length]))).await?,
            },
        }
    }
}
