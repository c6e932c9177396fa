// Embeds texts over longembed.v1: one call, a stream, and an error with its details.
// README.md in the parent folder says how to build and run this example.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	longembedv1 "example/longembed/v1"
)

// The window vectors of a long text exceed the default limit of 4 MiB.
const maxReceiveBytes = 64 << 20

func text(content string) *longembedv1.Input {
	return &longembedv1.Input{Content: &longembedv1.Input_Text{Text: content}}
}

func embed(ctx context.Context, client longembedv1.EmbeddingServiceClient) error {
	response, err := client.Embed(ctx, &longembedv1.EmbedRequest{
		Options: &longembedv1.EmbedOptions{Prompting: &longembedv1.EmbedOptions_PromptName{PromptName: "query"}},
		Inputs:  []*longembedv1.Input{text("how long is the Nile?")},
	})
	if err != nil {
		return err
	}
	result := response.GetResults()[0]
	fmt.Printf("Embed: %s, %d dimensions, %d tokens\n", response.GetModel(), len(result.GetEmbeddings()[0].GetValues()), result.GetTokens())
	return nil
}

// The first message holds the options. Answers arrive as soon as they are ready, each with the id of its text.
func embedStream(ctx context.Context, client longembedv1.EmbeddingServiceClient) error {
	stream, err := client.EmbedStream(ctx)
	if err != nil {
		return err
	}
	options := &longembedv1.EmbedOptions{Prompting: &longembedv1.EmbedOptions_PromptName{PromptName: "passage"}}
	requests := []*longembedv1.EmbedStreamRequest{
		{Options: options, Id: "nile", Input: text("The Nile is about 6,650 km long.")},
		{Id: "amazon", Input: text("The Amazon is about 6,400 km long.")},
	}
	for _, request := range requests {
		if err := stream.Send(request); err != nil {
			break // Recv returns the reason.
		}
	}
	stream.CloseSend()
	for {
		answer, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if failed := answer.GetResult().GetError(); failed != nil {
			fmt.Printf("EmbedStream: %s failed: %s\n", answer.GetId(), failed.GetMessage())
			continue
		}
		fmt.Printf("EmbedStream: %s, %d dimensions\n", answer.GetId(), len(answer.GetResult().GetEmbeddings()[0].GetValues()))
	}
}

// A text longer than the model's window is refused, unless the request sets `extension` or `truncate`.
func refused(ctx context.Context, client longembedv1.EmbeddingServiceClient) error {
	long := strings.Repeat("The Nile is about 6,650 km long. ", 100)
	_, err := client.Embed(ctx, &longembedv1.EmbedRequest{Inputs: []*longembedv1.Input{text(long)}})
	refusal, ok := status.FromError(err)
	if err == nil || !ok {
		return fmt.Errorf("the text was not refused: %v", err)
	}
	reason, field := "", ""
	for _, detail := range refusal.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.GetReason()
		case *errdetails.BadRequest:
			field = detail.GetFieldViolations()[0].GetField()
		}
	}
	fmt.Printf("Refused: %s, reason %s, field %s: %s\n", refusal.Code(), reason, field, refusal.Message())
	return nil
}

func main() {
	address := os.Getenv("LONGEMBED_SERVER")
	if address == "" {
		address = "127.0.0.1:50051"
	}
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceiveBytes)))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := longembedv1.NewEmbeddingServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, step := range []func(context.Context, longembedv1.EmbeddingServiceClient) error{embed, embedStream, refused} {
		if err := step(ctx, client); err != nil {
			log.Fatal(err)
		}
	}
}
