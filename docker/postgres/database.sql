-- Run once by the image's entrypoint, when PostgreSQL's folder is empty: creates one database and its owner.
\set password `cat /run/secrets/owner_password`
CREATE ROLE tlopt LOGIN PASSWORD :'password';
CREATE DATABASE tlopt OWNER tlopt;
REVOKE ALL ON DATABASE tlopt FROM PUBLIC;
REVOKE ALL ON DATABASE postgres FROM PUBLIC;
