// Buys an activation code from holdpayd and prints it: holdpay-code COUNTRY SERVICE KEY
//
// The socket is $HOLDPAY_SOCKET. KEY names the purchase: whoever asks again with it gets the same order, never a second.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "example.com/holdpay-code/holdpayv1"
)

func main() {
	if len(os.Args) != 4 {
		fail("usage: holdpay-code COUNTRY SERVICE KEY")
	}
	socket := os.Getenv("HOLDPAY_SOCKET")
	if socket == "" {
		socket = "/run/holdpay/holdpay.sock"
	}
	// The kernel says who may open the socket; there is nothing to encrypt.
	connection, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fail(err.Error())
	}
	defer connection.Close()
	request := &pb.SubmitRequest{
		IdempotencyKey: os.Args[3],
		Spec:           &pb.SubmitRequest_Code{Code: &pb.CodeSpec{Countries: []string{os.Args[1]}, Service: os.Args[2]}},
	}
	// A connection that is lost, or a daemon that restarts, changes nothing about the order: ask again with the same key.
	for deadline := time.Now().Add(25 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		if code := follow(pb.NewHoldpayClient(connection), request); code != "" {
			fmt.Println(code)
			return
		}
	}
	fail("no code after 25 minutes; an order that was taken goes on: run this again with the same key")
}

// follow returns the code, or "" if the stream was lost before it came. It ends the program where none will come.
func follow(holdpay pb.HoldpayClient, request *pb.SubmitRequest) string {
	stream, err := holdpay.Submit(context.Background(), request)
	if err != nil {
		return retryable(err)
	}
	number := ""
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return ""
		}
		if err != nil {
			return retryable(err)
		}
		was, code := number, ""
		updates := message.GetUpdates()
		now := updates[len(updates)-1].GetRequest() // the latest has all that those before it have
		for _, item := range now.GetItems() {
			switch item.GetKind() {
			case pb.ItemKind_ITEM_KIND_NUMBER: // of several the last counts
				number = item.GetText()
			case pb.ItemKind_ITEM_KIND_CODE: // of several the first
				code = cmp.Or(code, item.GetText())
			}
		}
		if number != was {
			fmt.Fprintln(os.Stderr, "the number is", number)
		}
		if code != "" {
			return code
		}
		if now.GetTerminal() {
			fail(fmt.Sprintf("%s: %s", now.GetEnd(), now.GetReason()))
		}
	}
}

var told string // of a daemon that does not answer: each trouble is told once

// retryable returns "" if nobody refused anything: no daemon answered. A refusal has a reason for programs.
func retryable(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			fail(fmt.Sprintf("%s %v: %s", info.GetReason(), info.GetMetadata(), status.Convert(err).Message()))
		}
	}
	if status.Code(err) != codes.Unavailable {
		fail(err.Error())
	}
	if words := status.Convert(err).Message(); words != told {
		told = words
		fmt.Fprintln(os.Stderr, "holdpayd does not answer, it is asked again:", words)
	}
	return ""
}

func fail(words string) {
	fmt.Fprintln(os.Stderr, words)
	os.Exit(1)
}
