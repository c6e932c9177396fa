package example;

import com.google.protobuf.Any;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.longembed.v1.EmbedOptions;
import com.longembed.v1.EmbedRequest;
import com.longembed.v1.EmbedResponse;
import com.longembed.v1.EmbedResult;
import com.longembed.v1.EmbedStreamRequest;
import com.longembed.v1.EmbedStreamResponse;
import com.longembed.v1.EmbeddingServiceGrpc;
import com.longembed.v1.Input;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * Embeds texts over longembed.v1: one call, a stream, and an error with its details. README.md in
 * client/examples says how to build and run this example.
 */
public final class Main {
  /** The window vectors of a long text exceed the default limit of 4 MiB. */
  private static final int MAX_RECEIVE_BYTES = 64 << 20;

  private static final int TIMEOUT_SECONDS = 60;

  public static void main(String[] arguments) throws Exception {
    String address = System.getenv().getOrDefault("LONGEMBED_SERVER", "127.0.0.1:50051");
    ManagedChannel channel =
        ManagedChannelBuilder.forTarget(address).usePlaintext().maxInboundMessageSize(MAX_RECEIVE_BYTES).build();
    try {
      embed(EmbeddingServiceGrpc.newBlockingStub(channel).withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS));
      embedStream(EmbeddingServiceGrpc.newStub(channel).withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS));
      refused(EmbeddingServiceGrpc.newBlockingStub(channel).withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS));
    } finally {
      channel.shutdownNow().awaitTermination(TIMEOUT_SECONDS, TimeUnit.SECONDS);
    }
  }

  private static Input text(String content) {
    return Input.newBuilder().setText(content).build();
  }

  private static EmbedOptions prompt(String name) {
    return EmbedOptions.newBuilder().setPromptName(name).build();
  }

  private static void embed(EmbeddingServiceGrpc.EmbeddingServiceBlockingStub client) {
    EmbedRequest request =
        EmbedRequest.newBuilder().setOptions(prompt("query")).addInputs(text("how long is the Nile?")).build();
    EmbedResponse response = client.embed(request);
    EmbedResult result = response.getResults(0);
    System.out.printf(
        "Embed: %s, %d dimensions, %d tokens%n",
        response.getModel(), result.getEmbeddings(0).getValuesCount(), result.getTokens());
  }

  /** Streams texts. The first message holds the options. Answers come as soon as they are ready. */
  private static void embedStream(EmbeddingServiceGrpc.EmbeddingServiceStub client) throws InterruptedException {
    CountDownLatch ended = new CountDownLatch(1);
    StreamObserver<EmbedStreamRequest> requests =
        client.embedStream(
            new StreamObserver<EmbedStreamResponse>() {
              @Override
              public void onNext(EmbedStreamResponse answer) {
                EmbedResult result = answer.getResult();
                if (result.hasError()) {
                  System.out.printf("EmbedStream: %s failed: %s%n", answer.getId(), result.getError().getMessage());
                } else {
                  System.out.printf(
                      "EmbedStream: %s, %d dimensions%n", answer.getId(), result.getEmbeddings(0).getValuesCount());
                }
              }

              @Override
              public void onError(Throwable error) {
                System.out.printf("EmbedStream ended: %s%n", error.getMessage());
                ended.countDown();
              }

              @Override
              public void onCompleted() {
                ended.countDown();
              }
            });
    requests.onNext(
        EmbedStreamRequest.newBuilder()
            .setOptions(prompt("passage"))
            .setId("nile")
            .setInput(text("The Nile is about 6,650 km long."))
            .build());
    requests.onNext(
        EmbedStreamRequest.newBuilder().setId("amazon").setInput(text("The Amazon is about 6,400 km long.")).build());
    requests.onCompleted();
    ended.await(TIMEOUT_SECONDS, TimeUnit.SECONDS);
  }

  /** Shows an error: a text beyond the window is refused, unless the request sets `extension` or `truncate`. */
  private static void refused(EmbeddingServiceGrpc.EmbeddingServiceBlockingStub client) throws Exception {
    String text = "The Nile is about 6,650 km long. ".repeat(100);
    try {
      client.embed(EmbedRequest.newBuilder().addInputs(text(text)).build());
    } catch (StatusRuntimeException error) {
      String reason = "";
      String field = "";
      for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          reason = detail.unpack(ErrorInfo.class).getReason();
        } else if (detail.is(BadRequest.class)) {
          field = detail.unpack(BadRequest.class).getFieldViolations(0).getField();
        }
      }
      System.out.printf(
          "Refused: %s, reason %s, field %s: %s%n",
          error.getStatus().getCode(), reason, field, error.getStatus().getDescription());
      return;
    }
    throw new IllegalStateException("the text was not refused");
  }
}
