// An order service and a payment service of dialect A, with the npm client `nats`: base subjects, the domain-event
// envelope. They say on stdout, one JSON line each, what they made of every event that they heard.
import { connect, JSONCodec, Subscription } from 'nats';
import { randomUUID } from 'node:crypto';

interface DomainEvent {
  eventId: string;
  eventType: string;
  aggregateId: string;
  eventVersion: number;
  occurredOn: string;
  eventData: Record<string, any>;
  metadata: { eventId: string; correlationId: string; causationId?: string; version: string; source: string };
}

const codec = JSONCodec<DomainEvent>();
const say = (line: object): void => void process.stdout.write(JSON.stringify(line) + '\n');

function event(eventType: string, aggregateId: string, eventData: Record<string, unknown>, source: string): DomainEvent {
  const eventId = randomUUID();
  return {
    eventId,
    eventType,
    aggregateId,
    eventVersion: 1,
    occurredOn: new Date().toISOString(),
    eventData,
    metadata: { eventId, correlationId: `${source}-${Date.now()}`, version: '1.0', source },
  };
}

const minutes = (from: string, to: string): number => (new Date(to).getTime() - new Date(from).getTime()) / 60_000;

// What a service needs of each event, in the types that it needs: a field of another type throws or becomes null.
const reads: Record<string, (data: Record<string, any>) => object> = {
  'inventory.stock.reserved': (data) => ({
    orderId: data.orderId,
    left: data.remainingStock - 0,
    reserved: data.quantityReserved.toFixed(0),
    minutes: minutes(data.reservedAt, data.reservationExpiry),
  }),
  'payment.initiated': (data) => ({ orderId: data.orderId, price: `${data.amount.toFixed(2)} ${data.currency}` }),
  'order.confirmed': (data) => ({ paidBy: data.paymentReference, days: minutes(data.confirmedAt, data.estimatedDelivery) > 0 }),
  'order.cancelled': (data) => ({ reason: data.reason.trim(), by: data.cancelledBy, refund: data.refundRequired === true }),
};

async function main(url: string, product: string): Promise<void> {
  const nc = await connect({ servers: url, name: 'services of dialect A' });
  const publish = (subject: string, what: DomainEvent): void => nc.publish(subject, codec.encode(what));

  async function hear(subject: string, subscription: Subscription): Promise<void> {
    for await (const message of subscription) {
      const heard = codec.decode(message.data);
      if (!heard.eventData || !heard.metadata?.eventId) throw new Error(`no domain event on ${subject}`);
      const { eventType, aggregateId, metadata } = heard;
      say({ heard: subject, eventType, aggregateId, source: metadata.source, ...reads[subject](heard.eventData) });
      if (subject === 'payment.initiated') {
        const { orderId, amount, currency } = heard.eventData;
        const paid = { orderId, transactionId: `txn-${orderId}`, amount, currency, fees: 0, netAmount: amount };
        publish('payment.succeeded', event('PaymentSucceededEvent', aggregateId, paid, 'payment-service'));
      }
    }
  }

  for (const subject of Object.keys(reads)) {
    void hear(subject, nc.subscribe(subject)).catch((error) => say({ failed: String(error) }));
  }
  await nc.flush();
  for (const [order, quantity] of [['node-bought', 2], ['node-too-many', 1_000]] as const) {
    const items = [{ productId: product, productName: 'Aceite Picual de Úbeda', quantity, unitPrice: 12.5 }];
    const data = { customerId: 'customer_node', customerEmail: 'señora@jaén.example', items, totalAmount: 12.5 * quantity, currency: 'EUR' };
    publish('order.created', event('OrderCreatedEvent', order, data, 'order-service'));
  }
  process.on('SIGTERM', () => void nc.drain().then(() => process.exit(0)));
}

void main(process.argv[2], process.argv[3]);
