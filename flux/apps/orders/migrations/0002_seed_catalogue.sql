-- The catalogue's first thousand entries, some customers, and their orders.
INSERT INTO dummy (id, label, quantity, checksum)
SELECT n, label, quantity, md5(label || ':' || quantity)
  FROM (SELECT n, 'Item ' || lpad(n::text, 5, '0') AS label, (n * 37) % 500 AS quantity FROM generate_series(1, 1000) AS n) AS entry;
SELECT setval(pg_get_serial_sequence('dummy', 'id'), 1000);

INSERT INTO customers (email, name)
SELECT 'customer' || n || '@shop.invalid', 'Customer ' || n FROM generate_series(1, 20) AS n;

INSERT INTO orders (customer_id, product_id, quantity, status, placed_at)
SELECT 1 + n % 20, 1 + (n * 7) % 1000, 1 + n % 120, (ARRAY['placed', 'packed', 'shipped', 'cancelled']::order_status[])[1 + n % 4],
       timestamptz '2026-01-01 00:00:00+00' + n * interval '1 hour'
  FROM generate_series(1, 300) AS n;
