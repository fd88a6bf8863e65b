// Print the alerts as they come, with franz-go.
package main

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	client, err := kgo.NewClient(kgo.SeedBrokers("localhost:9092"), kgo.ConsumeTopics("alerts"),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	for err == nil {
		client.PollFetches(context.Background()).EachRecord(func(record *kgo.Record) {
			fmt.Println(string(record.Value))
		})
	}
	panic(err)
}
