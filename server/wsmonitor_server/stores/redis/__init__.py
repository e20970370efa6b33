"""The store and the bus on Redis (or Valkey): see `store.RedisStore`. Imported when it is used."""
