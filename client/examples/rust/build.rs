// Generates the client from the proto. google.rpc is taken from tonic-types instead of being generated.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_protos(&["../../../proto/longembed/v1/embedding.proto"], &["../../../proto"])?;
    Ok(())
}
