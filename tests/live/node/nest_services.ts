// The same two services with NestJS' microservices over NATS, in dialect C: `@EventPattern` hears, a ClientProxy says.
import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ClientProxy, ClientProxyFactory, Ctx, EventPattern, MicroserviceOptions, NatsContext, Payload, Transport } from '@nestjs/microservices';
import { randomUUID } from 'node:crypto';
import { lastValueFrom } from 'rxjs';

interface SharedEvent {
  eventId: string;
  eventType: string;
  correlationId: string;
  timestamp: string;
  data: Record<string, any>;
  payload?: Record<string, any>;
}

const [url, product] = process.argv.slice(2);
const say = (line: object): void => void process.stdout.write(JSON.stringify(line) + '\n');
const client: ClientProxy = ClientProxyFactory.create({ transport: Transport.NATS, options: { servers: [url] } });

async function emit(eventType: string, data: Record<string, unknown>): Promise<void> {
  const event: SharedEvent = { eventId: randomUUID(), eventType, correlationId: randomUUID(), timestamp: new Date().toISOString(), data };
  await lastValueFrom(client.emit(eventType, event), { defaultValue: undefined });
}

function tell(context: NatsContext, event: SharedEvent, read: object): void {
  const asPayload = JSON.stringify(event.payload) === JSON.stringify(event.data);
  say({ heard: context.getSubject(), eventType: event.eventType, asPayload, ...read });
}

@Controller()
class Services {
  @EventPattern('inventory.reserved.v1')
  reserved(@Payload() event: SharedEvent, @Ctx() context: NatsContext): void {
    const { orderId, reservationId, items, expiresAt } = event.data;
    const units = items.reduce((sum: number, item: { quantity: number }) => sum + item.quantity, 0);
    tell(context, event, { orderId, units, known: reservationId.startsWith('res-'), later: new Date(expiresAt) > new Date() });
  }

  @EventPattern('payment.requested.v1')
  async requested(@Payload() event: SharedEvent, @Ctx() context: NatsContext): Promise<void> {
    const { orderId, customerId, paymentId, amount, currency } = event.data;
    tell(context, event, { orderId, price: `${amount.toFixed(2)} ${currency}` });
    await emit('payment.confirmed.v1', { paymentId, orderId, customerId, amount, currency, paymentIntentId: `pi-${orderId}` });
  }

  @EventPattern('order.confirmed.v1')
  confirmed(@Payload() event: SharedEvent, @Ctx() context: NatsContext): void {
    const { orderId, paymentReference, totalAmount } = event.data;
    tell(context, event, { orderId, paymentReference, total: totalAmount.toFixed(2) });
  }

  @EventPattern('inventory.out_of_stock.v1')
  outOfStock(@Payload() event: SharedEvent, @Ctx() context: NatsContext): void {
    const { orderId, unavailableItems } = event.data;
    const [item] = unavailableItems;
    tell(context, event, { orderId, tooFew: item.requestedQuantity - item.availableQuantity > 900 });
  }

  @EventPattern('order.cancelled.v1')
  cancelled(@Payload() event: SharedEvent, @Ctx() context: NatsContext): void {
    tell(context, event, { orderId: event.data.orderId, by: event.data.cancelledBy });
  }
}

@Module({ controllers: [Services] })
class Market {}

async function main(): Promise<void> {
  const options: MicroserviceOptions = { transport: Transport.NATS, options: { servers: [url], queue: 'nest-services' } };
  const app = await NestFactory.createMicroservice(Market, { ...options, logger: ['error', 'warn'] });
  await app.listen();
  await client.connect();
  for (const [orderId, quantity] of [['nest-bought', 2], ['nest-too-many', 1_000]] as const) {
    const items = [{ productId: product, quantity, unitPrice: 12.5 }];
    await emit('order.created.v1', { orderId, customerId: 'customer_nest', items, totalAmount: 12.5 * quantity, currency: 'EUR' });
  }
  process.on('SIGTERM', () => void app.close().then(() => client.close()).then(() => process.exit(0)));
}

void main().catch((error) => say({ failed: String(error) }));
