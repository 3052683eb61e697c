//! A test for each server.

/// Makes a test on one server of each function, which is given the server's product.
macro_rules! tests_on {
    ($module:ident, $product:ident, $($name:ident,)+) => {
        mod $module {
            $(#[test] fn $name() { super::$name(whence_testkit::Product::$product); })+
        }
    };
}

/// Makes a test of each function on each MariaDB.
macro_rules! for_each_mariadb {
    ($($name:ident,)+) => {
        crate::servers::tests_on!(mariadb_10_5, MariaDb10_5, $($name,)+);
        crate::servers::tests_on!(mariadb_10_11, MariaDb10_11, $($name,)+);
        crate::servers::tests_on!(mariadb_11_8, MariaDb11_8, $($name,)+);
    };
}

/// Makes a test of each function on each server.
macro_rules! for_each_server {
    ($($name:ident,)+) => {
        crate::servers::for_each_mariadb!($($name,)+);
        crate::servers::tests_on!(mysql_5_6, MySql5_6, $($name,)+);
        crate::servers::tests_on!(mysql_9_7, MySql9_7, $($name,)+);
    };
}

pub(crate) use {for_each_mariadb, for_each_server, tests_on};
