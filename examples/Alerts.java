// Print the alerts as they come, with the client of Apache Kafka itself.
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

class Alerts {
    public static void main(String[] arguments) {
        var settings = Map.<String, Object>of("bootstrap.servers", "localhost:9092", "group.id", "alerts-java",
                "auto.offset.reset", "earliest", "isolation.level", "read_committed");
        var text = new StringDeserializer();
        try (var consumer = new KafkaConsumer<>(settings, text, text)) {
            consumer.subscribe(List.of("alerts"));
            while (true) consumer.poll(Duration.ofSeconds(1)).forEach(record -> System.out.println(record.value()));
        }
    }
}
