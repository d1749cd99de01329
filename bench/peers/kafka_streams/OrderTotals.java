import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/** Totals of each product: reads its row, writes it, and forwards one output per record. EOSv2, one thread. */
public final class OrderTotals {
    private static final ObjectMapper JSON = new ObjectMapper();

    @JsonIgnoreProperties(ignoreUnknown = true)
    public record Line(String productId, long quantity, double unitPrice) {}

    public record Row(long count, long units, double revenue) {}

    public record Totals(String productId, long count, long units, double revenue) {}

    private static final class Adding implements Processor<String, byte[], String, byte[]> {
        private final ObjectReader lines = JSON.readerFor(Line.class);
        private final ObjectReader rows = JSON.readerFor(Row.class);
        private final ObjectWriter written = JSON.writer();
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, byte[]> store;

        @Override
        public void init(ProcessorContext<String, byte[]> given) {
            context = given;
            store = given.getStateStore("totals");
        }

        @Override
        public void process(Record<String, byte[]> record) {
            try {
                Line line = lines.readValue(record.value());
                byte[] stored = store.get(record.key());
                Row before = stored == null ? new Row(0, 0, 0) : rows.readValue(stored);
                Row row = new Row(
                    before.count() + 1,
                    before.units() + line.quantity(),
                    before.revenue() + line.quantity() * line.unitPrice());
                store.put(record.key(), written.writeValueAsBytes(row));
                Totals said = new Totals(line.productId(), row.count(), row.units(), row.revenue());
                context.forward(record.withValue(written.writeValueAsBytes(said)));
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }

    /** Arguments: SERVERS INPUT OUTPUT NAME FOLDER; runs until it is ended. */
    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[3]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[4]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put("auto.offset.reset", "earliest");

        Topology topology = new Topology();
        topology.addSource("lines", Serdes.String().deserializer(), Serdes.ByteArray().deserializer(), arguments[1]);
        topology.addProcessor("adding", Adding::new, "lines");
        topology.addStateStore(
            Stores.keyValueStoreBuilder(
                    Stores.persistentKeyValueStore("totals"), Serdes.String(), Serdes.ByteArray())
                .withCachingEnabled(),
            "adding");
        topology.addSink(
            "totals-out", arguments[2], Serdes.String().serializer(), Serdes.ByteArray().serializer(), "adding");

        KafkaStreams streams = new KafkaStreams(topology, settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
