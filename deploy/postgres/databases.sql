-- Run once, on an empty volume: one database and one owner per service, and no way into the other's.
CREATE ROLE users LOGIN PASSWORD 'users';
CREATE DATABASE users OWNER users;
REVOKE CONNECT ON DATABASE users FROM PUBLIC;
CREATE ROLE orders LOGIN PASSWORD 'orders';
CREATE DATABASE orders OWNER orders;
REVOKE CONNECT ON DATABASE orders FROM PUBLIC;
