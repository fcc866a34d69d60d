//! A proxy between a client and a real server that delays, freezes, refuses, alters, cuts off and loses.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::build::bazel::remote::execution::v2::action_cache_client::ActionCacheClient;
use bazel_remote_apis::build::bazel::remote::execution::v2::action_cache_server::{
    ActionCache, ActionCacheServer,
};
use bazel_remote_apis::build::bazel::remote::execution::v2::capabilities_client::CapabilitiesClient;
use bazel_remote_apis::build::bazel::remote::execution::v2::capabilities_server::{
    Capabilities, CapabilitiesServer,
};
use bazel_remote_apis::build::bazel::remote::execution::v2::content_addressable_storage_client::ContentAddressableStorageClient;
use bazel_remote_apis::build::bazel::remote::execution::v2::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use bazel_remote_apis::google::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use bazel_remote_apis::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use futures_util::{Stream, StreamExt, stream};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

/// The largest message that goes through.
const MESSAGE: usize = 16 << 20;

/// A call that comes by.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// `capabilities`, `find`, `read-batch`, `write-batch`, `read`, `write`, `result` or `set-result`.
    pub method: &'static str,
    /// How many of that method came before it.
    pub number: usize,
}

/// What the proxy does with a call.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// Passes it on.
    Pass,
    /// Passes it on later.
    Delay(Duration),
    /// Says that.
    Say(Code),
    /// Never answers.
    Freeze,
    /// Passes it on, and alters what comes back: a byte of each blob, or of the statement of a result.
    Alter,
    /// Says of every blob, or of the result, that it is not there.
    Lose,
    /// Ends the stream in the middle.
    Cut,
    /// Changes the result or the capabilities that come back.
    Result(fn(&mut api::ActionResult)),
    /// Changes the capabilities that come back.
    Capabilities(fn(&mut api::ServerCapabilities)),
}

type Mischief = Box<dyn FnMut(Call) -> Act + Send>;

#[derive(Default)]
struct State {
    mischief: Option<Mischief>,
    calls: BTreeMap<&'static str, usize>,
    bytes: BTreeMap<&'static str, usize>,
}

/// The proxy; it ends when it is dropped.
pub struct Proxy {
    address: String,
    state: Arc<Mutex<State>>,
    _runtime: Runtime,
}

impl Proxy {
    /// Starts one before the server with this address (`grpc://HOST:PORT`).
    pub fn start(server: &str) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let _context = runtime.enter();
        let endpoint = Endpoint::from_shared(server.replace("grpc://", "http://")).unwrap();
        let relay = Relay { state: Arc::clone(&state), channel: endpoint.connect_lazy() };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("grpc://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = Server::builder()
            .add_service(CapabilitiesServer::new(relay.clone()))
            .add_service(
                ContentAddressableStorageServer::new(relay.clone()).max_decoding_message_size(MESSAGE),
            )
            .add_service(ByteStreamServer::new(relay.clone()).max_decoding_message_size(MESSAGE))
            .add_service(ActionCacheServer::new(relay).max_decoding_message_size(MESSAGE));
        runtime.spawn(server.serve_with_incoming(incoming));
        drop(_context);
        Self { address, state, _runtime: runtime }
    }

    /// Returns its address.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Says what becomes of the calls from now on.
    pub fn misbehave(&self, mischief: impl FnMut(Call) -> Act + Send + 'static) {
        self.state.lock().unwrap().mischief = Some(Box::new(mischief));
    }

    /// Returns how many calls of a method came by.
    pub fn calls(&self, method: &str) -> usize {
        self.state.lock().unwrap().calls.get(method).copied().unwrap_or(0)
    }

    /// Returns how many bytes of blobs went through a method.
    pub fn bytes(&self, method: &str) -> usize {
        self.state.lock().unwrap().bytes.get(method).copied().unwrap_or(0)
    }
}

#[derive(Clone)]
struct Relay {
    state: Arc<Mutex<State>>,
    channel: Channel,
}

impl Relay {
    /// Finds out what becomes of a call, and does the part of it that comes before the server is asked.
    async fn act(&self, method: &'static str) -> Result<Act, Status> {
        let act = {
            let mut state = self.state.lock().unwrap();
            let count = state.calls.entry(method).or_default();
            let number = *count;
            *count += 1;
            state.mischief.as_mut().map_or(Act::Pass, |mischief| mischief(Call { method, number }))
        };
        match act {
            Act::Delay(time) => tokio::time::sleep(time).await,
            Act::Freeze => std::future::pending().await,
            Act::Say(code) => return Err(Status::new(code, "asked to say so")),
            _ => {}
        }
        Ok(act)
    }

    fn count(&self, method: &'static str, bytes: usize) {
        *self.state.lock().unwrap().bytes.entry(method).or_default() += bytes;
    }

    fn content(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE)
    }
}

/// Alters a byte.
fn alter(bytes: &mut [u8]) {
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
}

#[tonic::async_trait]
impl Capabilities for Relay {
    async fn get_capabilities(
        &self,
        request: Request<api::GetCapabilitiesRequest>,
    ) -> Result<Response<api::ServerCapabilities>, Status> {
        let act = self.act("capabilities").await?;
        let mut answer = CapabilitiesClient::new(self.channel.clone()).get_capabilities(request).await?;
        if let Act::Capabilities(change) = act {
            change(answer.get_mut());
        }
        Ok(answer)
    }
}

#[tonic::async_trait]
impl ActionCache for Relay {
    async fn get_action_result(
        &self,
        request: Request<api::GetActionResultRequest>,
    ) -> Result<Response<api::ActionResult>, Status> {
        let act = self.act("result").await?;
        if let Act::Lose = act {
            return Err(Status::not_found("lost"));
        }
        let mut client = ActionCacheClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE);
        let mut answer = client.get_action_result(request).await?;
        match act {
            Act::Alter => answer.get_mut().output_files.iter_mut().for_each(|file| alter(&mut file.contents)),
            Act::Result(change) => change(answer.get_mut()),
            _ => {}
        }
        Ok(answer)
    }

    async fn update_action_result(
        &self,
        request: Request<api::UpdateActionResultRequest>,
    ) -> Result<Response<api::ActionResult>, Status> {
        self.act("set-result").await?;
        ActionCacheClient::new(self.channel.clone()).update_action_result(request).await
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ContentAddressableStorage for Relay {
    async fn find_missing_blobs(
        &self,
        request: Request<api::FindMissingBlobsRequest>,
    ) -> Result<Response<api::FindMissingBlobsResponse>, Status> {
        let act = self.act("find").await?;
        if let Act::Lose = act {
            let missing_blob_digests = request.into_inner().blob_digests;
            return Ok(Response::new(api::FindMissingBlobsResponse { missing_blob_digests }));
        }
        self.content().find_missing_blobs(request).await
    }

    async fn batch_update_blobs(
        &self,
        request: Request<api::BatchUpdateBlobsRequest>,
    ) -> Result<Response<api::BatchUpdateBlobsResponse>, Status> {
        self.count("write-batch", request.get_ref().requests.iter().map(|request| request.data.len()).sum());
        self.act("write-batch").await?;
        self.content().batch_update_blobs(request).await
    }

    async fn batch_read_blobs(
        &self,
        request: Request<api::BatchReadBlobsRequest>,
    ) -> Result<Response<api::BatchReadBlobsResponse>, Status> {
        let act = self.act("read-batch").await?;
        let mut answer = self.content().batch_read_blobs(request).await?;
        for response in &mut answer.get_mut().responses {
            self.count("read-batch", response.data.len());
            match act {
                Act::Alter => alter(&mut response.data),
                Act::Lose => {
                    response.data.clear();
                    response.status.get_or_insert_default().code = Code::NotFound as i32;
                }
                _ => {}
            }
        }
        Ok(answer)
    }

    type GetTreeStream = Answers<api::GetTreeResponse>;

    async fn get_tree(
        &self,
        _: Request<api::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented("nobody asks for trees"))
    }

    type GetChunkMappingStream = Answers<api::GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        _: Request<api::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(Status::unimplemented("nobody asks for that"))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<api::RegisterChunkMappingRequest>>,
    ) -> Result<Response<api::RegisterChunkMappingResponse>, Status> {
        Err(Status::unimplemented("nobody asks for that"))
    }

    async fn split_blob(
        &self,
        _: Request<api::SplitBlobRequest>,
    ) -> Result<Response<api::SplitBlobResponse>, Status> {
        Err(Status::unimplemented("nobody asks for that"))
    }

    async fn splice_blob(
        &self,
        _: Request<api::SpliceBlobRequest>,
    ) -> Result<Response<api::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("nobody asks for that"))
    }
}

#[tonic::async_trait]
impl ByteStream for Relay {
    type ReadStream = Answers<ReadResponse>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let act = self.act("read").await?;
        if let Act::Lose = act {
            return Err(Status::not_found("lost"));
        }
        let pieces = ByteStreamClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE)
            .read(request)
            .await?
            .into_inner();
        let relay = self.clone();
        let pieces = pieces.enumerate().map(move |(number, piece)| {
            let mut piece = piece?;
            relay.count("read", piece.data.len());
            match act {
                Act::Alter if number == 0 => alter(&mut piece.data),
                Act::Cut if number > 0 => return Err(Status::unavailable("cut off")),
                _ => {}
            }
            Ok(piece)
        });
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        self.act("write").await?;
        let mut pieces = request.into_inner();
        let mut all = Vec::new();
        while let Some(piece) = pieces.message().await? {
            self.count("write", piece.data.len());
            all.push(piece);
        }
        ByteStreamClient::new(self.channel.clone()).write(stream::iter(all)).await
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("nobody asks for that"))
    }
}
