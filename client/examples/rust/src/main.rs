//! Embeds texts over longembed.v1: one call, a stream, and an error with its details.
//! README.md in the parent folder says how to run this example.

use std::{env, error::Error, time::Duration};

use tonic::{transport::Channel, transport::Endpoint, Request};
use tonic_types::StatusExt;

use longembed::{
    embed_options::Prompting, embedding_service_client::EmbeddingServiceClient, input::Content, EmbedOptions,
    EmbedRequest, EmbedStreamRequest, Input,
};

mod longembed {
    tonic::include_proto!("longembed.v1");
}

type Client = EmbeddingServiceClient<Channel>;

// The window vectors of a long text exceed the default limit of 4 MiB.
const MAX_RECEIVE_BYTES: usize = 64 << 20;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Gives a call a deadline that the server knows. `Endpoint::timeout` is known to the client alone.
fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

fn text(content: &str) -> Option<Input> {
    Some(Input { content: Some(Content::Text(content.into())), ..Default::default() })
}

fn prompt(name: &str) -> Option<EmbedOptions> {
    Some(EmbedOptions { prompting: Some(Prompting::PromptName(name.into())), ..Default::default() })
}

async fn embed(client: &mut Client) -> Result<(), Box<dyn Error>> {
    let request = EmbedRequest {
        options: prompt("query"),
        inputs: text("how long is the Nile?").into_iter().collect(),
        ..Default::default()
    };
    let response = client.embed(within(request)).await?.into_inner();
    let result = &response.results[0];
    println!("Embed: {}, {} dimensions, {} tokens", response.model, result.embeddings[0].values.len(), result.tokens);
    Ok(())
}

/// Streams texts. The first message holds the options. Answers arrive as soon as they are ready, each with its text's id.
async fn embed_stream(client: &mut Client) -> Result<(), Box<dyn Error>> {
    let requests = [
        EmbedStreamRequest {
            options: prompt("passage"),
            id: "nile".into(),
            input: text("The Nile is about 6,650 km long."),
            ..Default::default()
        },
        EmbedStreamRequest {
            id: "amazon".into(),
            input: text("The Amazon is about 6,400 km long."),
            ..Default::default()
        },
    ];
    let mut answers = client.embed_stream(within(tokio_stream::iter(requests))).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        let result = answer.result.unwrap_or_default();
        match result.error {
            Some(error) => println!("EmbedStream: {} failed: {}", answer.id, error.message),
            None => println!("EmbedStream: {}, {} dimensions", answer.id, result.embeddings[0].values.len()),
        }
    }
    Ok(())
}

/// Shows an error: a text longer than the model's window is refused, unless the request sets `extension` or `truncate`.
async fn refused(client: &mut Client) -> Result<(), Box<dyn Error>> {
    let long = "The Nile is about 6,650 km long. ".repeat(100);
    let request = EmbedRequest { inputs: text(&long).into_iter().collect(), ..Default::default() };
    let status = match client.embed(within(request)).await {
        Ok(_) => return Err("the text was not refused".into()),
        Err(status) => status,
    };
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    let field = violations.first().map(|violation| violation.field.as_str()).unwrap_or_default();
    println!("Refused: {:?}, reason {reason}, field {field}: {}", status.code(), status.message());
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::var("LONGEMBED_SERVER").unwrap_or_else(|_| "127.0.0.1:50051".into());
    let channel = Endpoint::try_from(format!("http://{address}"))?.connect_timeout(TIMEOUT).connect().await?;
    let mut client = EmbeddingServiceClient::new(channel).max_decoding_message_size(MAX_RECEIVE_BYTES);
    embed(&mut client).await?;
    embed_stream(&mut client).await?;
    refused(&mut client).await
}
